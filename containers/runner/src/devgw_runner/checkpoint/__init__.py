"""Checkpoints: one directory per step, complete or absent, verified by checksum."""
