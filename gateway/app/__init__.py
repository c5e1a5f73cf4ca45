"""Joins the rooms: `composition` names the implementations, `serve` runs them behind the one port."""

from gateway.app.composition import App

__all__ = ["App"]
