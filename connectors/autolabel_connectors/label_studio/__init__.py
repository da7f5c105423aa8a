"""Two-way sync with Label Studio; units of the tool appear in `convert` and `brush` alone."""
