"""Speed beside peers, measured over sockets in one run: ``make bench``."""
