"""An encoder that runs in another process of this machine, reached over a Unix socket."""
