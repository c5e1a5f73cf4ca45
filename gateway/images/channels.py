"""Which image a reference leads to now: a channel to what it was last promoted to, a pin to its own digest.

The store says what a channel names; a channel that nobody moved is whatever bears its name on the engine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.engines.image_store import ImageStore
from gateway.engines.interface import IMAGE_LABEL_PREFIX, Image
from gateway.errors import NotFoundError, UsageError
from gateway.images.references import REPOSITORY, Reference, channel_in, name_of_channel, short
from gateway.store.images import ChannelMove, ImageTable, standing


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel: `digest` is what it names now, `before` what a rollback leads to; both may be empty."""

    name: str
    moves: Sequence[ChannelMove]

    @property
    def standing(self) -> list[ChannelMove]:
        return standing(self.moves)

    @property
    def digest(self) -> str:
        return self.standing[-1].digest if self.standing else ""

    @property
    def before(self) -> str:
        return self.standing[-2].digest if len(self.standing) > 1 else ""

    @property
    def is_held(self) -> bool:
        """Whether an administrator moved it: from then on no build does."""
        return any(move.kind == "promoted" or move.undone_at is not None for move in self.moves)


class Channels:
    """Channels and pins of one site, seen from one host: images lie on hosts, moves in the database."""

    def __init__(self, table: ImageTable, find: Callable[[str], Image], store: Callable[[], ImageStore]) -> None:
        """`find` is the engine's look for a local image, by its own name or digest."""
        self._table = table
        self.find = find
        self._store = store

    def get(self, name: str) -> Channel:
        """Return a channel, by its own name; one without moves is as good as none."""
        return Channel(name, self._table.moves(name))

    def all(self) -> list[Channel]:
        """Return every channel that was ever moved, by name."""
        moves = self._table.moves()
        names = sorted({move.channel for move in moves})
        return [Channel(name, [move for move in moves if move.channel == name]) for name in names]

    def first_move(self, channel: Channel, by: str) -> ChannelMove | None:
        """Return what a channel that nobody moved yet is called on the engine, so that a rollback leads there."""
        if channel.moves:
            return None
        try:
            found = self.find(name_of_channel(channel.name))
        except NotFoundError:
            return None
        words = "what the engine called so when the channel was first moved"
        return ChannelMove(channel.name, found.digest, "found", datetime.now(UTC), by, words)

    def choose(self, text: str) -> Image:
        """Return the image that an environment of this reference is to be started from now.

        Raises:
            NotFoundError: `image.not-found`, `image.outdated`.
            UsageError: `image.bad-reference`, `image.ambiguous`.
        """
        reference = Reference.parse(text)
        if reference.digest:
            return self._pinned(text, reference)
        channel = self.get(reference.channel) if reference.channel else None
        if channel is not None and channel.digest:
            return self._named_by(channel, text)
        if reference.channel and reference.name == reference.channel:
            return self._either(reference.name)
        return self.find(text)

    def canonical(self, text: str) -> str:
        """Return a reference as a row keeps it and a policy reads it. Raises: as `choose`."""
        reference, image = Reference.parse(text), self.choose(text)
        if reference.digest:
            name = name_of_channel(reference.channel) if reference.channel else reference.name
            known = image.digest if image.digest.startswith(reference.digest) else reference.digest
            return f"{name}@{known}" if name else known
        return image.reference

    def _named_by(self, channel: Channel, text: str) -> Image:
        try:
            found = self.find(channel.digest)
        except NotFoundError as exc:
            if exc.code != "image.not-found":
                raise
            message = f"the channel {channel.name} names {short(channel.digest)}, which is not on this host"
            hint = f"'devgw image pull' or 'import' brings it, 'devgw image rollback {channel.name}' goes back"
            raise NotFoundError("image.not-found", message, hint) from exc
        return Image(name_of_channel(channel.name) if channel_in(text) else text, found.digest, found.labels)

    def _either(self, name: str) -> Image:
        """Find a short name: the channel's image if there is one, else what the engine calls so."""
        try:
            return self.find(name_of_channel(name))
        except NotFoundError:
            return self.find(name)

    def _pinned(self, text: str, reference: Reference) -> Image:
        full = self.full_digest(reference.digest)
        if not full and reference.name and not reference.channel:
            return self.find(text)  # by the digest that a registry gave it
        if not full:
            message = f"there is no image {reference.digest[:19]} on this host"
            raise NotFoundError("image.not-found", message, "'devgw image list' shows what is there")
        found = self.find(full)
        if reference.channel and not self._belongs(reference.channel, found):
            message = f"{short(full)} was never an image of the channel {reference.channel}"
            raise NotFoundError("image.not-found", message, f"'devgw image show {short(full)}' says what it is")
        if reference.name and not reference.channel:
            named = {one.digest: one.names for one in self._store().all()}.get(full, ())
            if not any(name.rpartition(":")[0] == reference.name or name == reference.name for name in named):
                message = f"{short(full)} is not called {reference.name}"
                raise NotFoundError("image.not-found", message, f"'devgw image show {short(full)}' says what it is")
        return Image(text, found.digest, found.labels)

    def _belongs(self, channel: str, image: Image) -> bool:
        by_profile = image.labels.get(f"{IMAGE_LABEL_PREFIX}profile") == channel
        return by_profile or any(move.digest == image.digest for move in self._table.moves(channel))

    def full_digest(self, beginning: str) -> str:
        """Return the one digest on this host that begins so; empty for none. Raises: UsageError `image.ambiguous`."""
        found = {one.digest for one in self._store().all() if one.digest.startswith(beginning)}
        if len(found) > 1:
            hint = "write more of it: 'devgw image list -o json' shows whole digests"
            raise UsageError("image.ambiguous", f"{len(found)} images begin with {beginning}", hint)
        return next(iter(found), "")


def is_of_channel(text: str, channel: str) -> bool:
    """Say whether an environment of this reference follows a channel."""
    return text in {channel, f"{REPOSITORY}:{channel}"}
