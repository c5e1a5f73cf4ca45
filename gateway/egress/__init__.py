"""Connections of environments to hosts outside, by name: a proxy behind one Unix socket for each environment."""
