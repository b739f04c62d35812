"""The ports' implementations: encoders, checkpoints, images."""
