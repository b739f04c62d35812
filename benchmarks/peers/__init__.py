"""Other servers of the same kind, each started as its manual says, on the port in ``PORT``."""
