"""What is sent to the service to knock it over, and what becomes of it."""
