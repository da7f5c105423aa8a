"""Small bundled weights, made by ``training/``; see MODEL_CARD.md."""
