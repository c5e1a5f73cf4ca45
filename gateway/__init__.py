"""The devgw service and its command line. What is allowed is decided in `policies`, not here."""
