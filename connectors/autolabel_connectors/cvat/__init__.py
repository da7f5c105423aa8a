"""Two-way sync with CVAT; units of the tool appear in `convert` and `geometry` alone."""
