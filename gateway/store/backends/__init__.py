"""The databases that state may lie in: what differs between them, and nothing of what is stored."""
