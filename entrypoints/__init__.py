"""The ways in: HTTP and the command line; settings; and the one place where all is put together."""
