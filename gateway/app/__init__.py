"""Joins the rooms: `composition` names the implementations, `serving` runs them behind the one port."""

from gateway.app.composition import App, administrator, policy_file

__all__ = ["App", "administrator", "policy_file"]
