"""The same use cases on a Ray cluster: `serving` serves HTTP, `bulk` embeds whole folders."""
