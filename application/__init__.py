"""Use cases, the ports they need, and the services they share. Knows only the domain."""
