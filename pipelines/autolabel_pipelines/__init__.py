"""Ready-made recipes for common jobs."""
