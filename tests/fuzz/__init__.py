"""Hostile bytes against a gateway process of its own: what is sent, what it costs, and who must not notice."""
