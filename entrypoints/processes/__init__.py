"""Several processes that serve HTTP on one port, and the one that owns the encoder.

::

    clients ──▶ front 1 ┐
    clients ──▶ front 2 ┼─ Unix socket ─▶ encoder process
    clients ──▶ front 3 ┘

`parent` starts them all and replaces any that has ended. `front` serves HTTP and decodes. `encoder`
has the model and forms batches from the requests of all fronts.
"""
