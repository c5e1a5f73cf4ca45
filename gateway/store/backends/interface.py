"""What the store asks of a database beyond SQL: how it is opened and locked, and what its errors mean."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import Engine

from gateway.errors import StoreError


class Backend(Protocol):
    """One database.

    A transaction that writes sees what every other one wrote before it, in whichever process: they come one after the
    other. One that only reads sees a single moment, waits for no writer and lets none wait.
    """

    @property
    def path(self) -> Path | None:
        """The file, or None for a server."""

    @property
    def reading_options(self) -> Mapping[str, Any]:
        """SQLAlchemy's execution options for a transaction that only reads."""

    def open(self) -> Engine:
        """Return an engine; nothing is connected yet. Raises: StoreError `store.driver-missing`."""

    def open_for_locks(self) -> Engine | None:
        """Return an engine whose connections hold locks outside transactions; None where there are no such locks."""

    def make_ready(self) -> None:
        """Make what must be there before the first connection. Raises: StoreError."""

    def explain(self, exc: Exception) -> StoreError:
        """Say in one line, without any password, what went wrong and what to do."""


ONLY_READS = "only_reads"
"""The execution option by which a backend tells transactions apart when they begin."""
