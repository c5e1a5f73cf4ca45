"""Which process owns what it has published: this one, and whether another one is still alive, on this host or not."""

from collections.abc import Callable
from typing import Protocol

from gateway.engines.bubblewrap.process import Process, boot_id
from gateway.errors import ConflictError
from gateway.store.serving import Serving
from gateway.store.sessions import Owner

SILENT_SECONDS = 8.0
"""A process of another gateway that has said nothing for so long serves no more; it says so every two."""
_FORGOTTEN_SECONDS = 86400.0


class ServingProcesses(Protocol):
    """What serving processes say of themselves; see `gateway.store.serving`."""

    def beat(self, owner: Owner, instance: str) -> bool: ...
    def get(self, owner: Owner) -> Serving | None: ...
    def all(self) -> list[Serving]: ...
    def forget(self, owner: Owner) -> None: ...


def this_process() -> Owner:
    """Return this process as the owner of live sessions."""
    own = Process.own()
    return Owner(own.pid, own.started, own.boot)


def is_alive(owner: Owner) -> bool:
    """Say whether an owner on this host still runs; a later process with its pid does not count."""
    return Process(owner.pid, owner.started, owner.boot).is_alive()


class Liveness:
    """Which processes of a site serve: this host's are looked at, others are believed for some seconds."""

    def __init__(
        self, instance: str, serving: ServingProcesses, is_alive_here: Callable[[Owner], bool] = is_alive
    ) -> None:
        self._instance = instance
        self._serving = serving
        self._is_alive_here = is_alive_here
        self._boot = boot_id()

    def is_alive(self, owner: Owner) -> bool:
        """Say whether a process still serves."""
        found = self._serving.get(owner)
        if found is None or self._is_here(found):
            return self._is_alive_here(owner)
        return found.silent_seconds < SILENT_SECONDS

    def is_forgotten(self, owner: Owner) -> bool:
        """Say whether nothing need be kept of a process: another gateway's own are its to sweep, for a day."""
        found = self._serving.get(owner)
        if found is None or self._is_here(found):
            return not self._is_alive_here(owner)
        return found.silent_seconds > _FORGOTTEN_SECONDS

    def beat(self) -> bool:
        """Say that this process serves; return whether it was known, and so what it had published."""
        return self._serving.beat(this_process(), self._instance)

    def begin(self) -> None:
        """Say so for the first time, and forget processes of this gateway that were killed.

        Raises:
            ConflictError: `site.instance-taken`, where a gateway of this name serves on another host.
        """
        for one in self._serving.all():
            if one.instance == self._instance and not self._is_here(one) and one.silent_seconds < SILENT_SECONDS:
                raise ConflictError(
                    "site.instance-taken",
                    f"a gateway named {self._instance} serves on another host",
                    "site.instance gives each gateway a name of its own",
                )
        for one in self._serving.all():
            if self.is_forgotten(one.owner):
                self._serving.forget(one.owner)
        self.beat()

    def end(self) -> None:
        """Say that this process serves no more."""
        self._serving.forget(this_process())

    def _is_here(self, one: Serving) -> bool:
        return one.instance == self._instance and one.owner.boot == self._boot
