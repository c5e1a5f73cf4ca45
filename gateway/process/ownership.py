"""Which process owns what it has published: this one, and whether another one is still alive."""

from gateway.engines.bubblewrap.process import Process
from gateway.store.sessions import Owner


def this_process() -> Owner:
    """Return this process as the owner of live sessions."""
    own = Process.own()
    return Owner(own.pid, own.started, own.boot)


def is_alive(owner: Owner) -> bool:
    """Say whether the owner still runs; a later process with its pid does not count."""
    return Process(owner.pid, owner.started, owner.boot).is_alive()
