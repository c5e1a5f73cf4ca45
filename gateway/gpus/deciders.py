"""Who decides about GPUs, devgw or the engine: where they are found, who comes first, when a lease ends.

This is the one place that says it. Whoever is in doubt asks here, and `devgw policy explain USER create` shows it.
"""

from dataclasses import dataclass

from gateway.engines.interface import Scheduling


@dataclass(frozen=True, slots=True)
class Deciders:
    """True is the engine, False devgw. Where the engine decides, the ledger follows what it observes."""

    engine_places: bool = False
    engine_queues: bool = False
    engine_ends: bool = False

    @classmethod
    def of(cls, scheduling: Scheduling) -> "Deciders":
        """Leave to an engine what it does itself; the order of a queue can be its own only where it places."""
        places = scheduling.places_gpus
        return cls(places, places and scheduling.has_queue, places and scheduling.ends_leases)

    def explained(self) -> dict[str, str]:
        """Say of each decision whose it is."""
        return {
            "GPUs are chosen by": _who(is_engine=self.engine_places),
            "the queue is kept by": _who(is_engine=self.engine_queues),
            "leases are ended by": _who(is_engine=self.engine_ends),
        }


def _who(*, is_engine: bool) -> str:
    return "the engine" if is_engine else "devgw"
