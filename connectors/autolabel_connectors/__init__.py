"""Connectors to annotation tools; found by the `autolabel.connectors` entry points."""
