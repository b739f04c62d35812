"""TensorRT engines of the image tower: built, recognised, kept, run."""
