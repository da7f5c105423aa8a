"""Measurements of speed and memory; each figure is a ratio of two runs on one machine."""
