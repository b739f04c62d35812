"""What CLIP embeddings mean and which inputs are allowed. Pure: standard library and numpy only."""
