"""The demo CLIP model behind `builtin:demo`: its checkpoint, training and evaluation."""
