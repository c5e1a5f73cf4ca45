"""Lifecycle of environments: directories, sockets, leases and engine brought together."""
