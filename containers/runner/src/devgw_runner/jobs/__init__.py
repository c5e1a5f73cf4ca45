"""Runs as processes: which are alive, which run detached, and what they printed."""
