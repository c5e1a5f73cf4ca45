"""What answers stand on: the parts of one gateway, and who is asking."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from gateway.gpus.inventory import Inventory
from gateway.model import Actor
from gateway.operations.administration import Administration, SiteParts
from gateway.operations.recorded import Recorded
from gateway.policy import PolicyInForce
from gateway.store.queue import QueueTable
from gateway.store.usage import UsageTable
from policies.requests import PageLevel, Subject

if TYPE_CHECKING:
    from gateway.audit.journal import Journal
    from gateway.environments.disks import Disks
    from gateway.environments.rounds import Rounds


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks through the page: held against store and policy at each question."""

    subject: Subject
    environment: str
    connection: str
    level: PageLevel

    @property
    def user(self) -> str:
        return self.subject.user

    @property
    def actor(self) -> Actor:
        """In whose name the journal records what is done."""
        return Actor("user", self.user, self.subject.key_fingerprint, self.subject.address)


class Site(SiteParts, Protocol):
    """One gateway's parts, each made on first use."""

    @property
    def disks(self) -> "Disks": ...
    @property
    def inventory(self) -> Inventory: ...
    @property
    def journal(self) -> "Journal": ...
    @property
    def policy(self) -> PolicyInForce: ...
    @property
    def queue_table(self) -> QueueTable: ...
    @property
    def rounds(self) -> "Rounds": ...
    @property
    def usage_table(self) -> UsageTable: ...


class _InTheNameOf:
    """A site whose acts are recorded as another person's."""

    def __init__(self, site: Site, recorded: Recorded) -> None:
        self._site = site
        self.recorded = recorded

    def __getattr__(self, name: str) -> Any:
        return getattr(self._site, name)


def acts_of(site: Site, asker: Asker) -> Administration:
    """Return the command line's own acts, recorded with the person's name, key and address."""
    recorded = Recorded(site.journal, asker.actor, site.recorded.make_room)
    return Administration(cast("SiteParts", _InTheNameOf(site, recorded)))
