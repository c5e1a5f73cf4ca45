"""Asks machine, driver, engine and state for the facts. Judges nothing, makes nothing, needs no root."""
