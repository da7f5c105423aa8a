"""Backends, one file each; they are found by entry point and loaded only when a run needs them."""
