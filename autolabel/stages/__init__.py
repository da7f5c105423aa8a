"""The steps of a labeling pass as small functions that return new values."""
