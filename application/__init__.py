"""Use cases, the ports they need, and the services they share. Imports only the domain."""
