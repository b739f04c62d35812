"""Training and evaluation of the demo CLIP model on emoji artwork."""
