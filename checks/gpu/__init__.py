"""What can only be seen on a machine with an NVIDIA GPU; not collected by pytest."""
