"""The same use cases on a Ray cluster: `serving` answers requests, `bulk` embeds whole folders."""
