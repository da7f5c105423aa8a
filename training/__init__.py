"""Training of the starter weights on procedural inspection photographs; beside the product, never imported by it."""
