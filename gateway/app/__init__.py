"""Joins the rooms: `composition` names the implementations, `serve` runs them behind the one port."""
