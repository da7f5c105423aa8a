"""Backends, and how a spec becomes a loaded model; importing this package imports no torch."""
