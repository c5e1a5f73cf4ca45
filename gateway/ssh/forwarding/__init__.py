"""Forwards: asked for, allowed, joined to what they lead to."""
