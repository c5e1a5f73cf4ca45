"""Channels move: an image is promoted, found bad, rolled back; environments follow at their next start, or when told.

The database says what a channel names; the name on the engine follows, for whoever looks there.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.engines.image_store import ImageStore
from gateway.engines.interface import Progress
from gateway.errors import ConflictError, DevgwError, NotFoundError
from gateway.images.channels import Channels, is_of_channel
from gateway.images.references import name_of_channel, parse_channel, short
from gateway.model import Environment, EnvironmentRef, EnvironmentState
from gateway.operations.environments import EnvironmentOperations
from gateway.operations.recorded import Recorded
from gateway.store.environments import EnvironmentTable
from gateway.store.images import ChannelMove, ImageTable

_log = logging.getLogger(__name__)
_FAILED_START = "the last start failed"


@dataclass(frozen=True, slots=True)
class ChannelParts:
    """What moves of channels stand on."""

    channels: Channels
    table: ImageTable
    environments: EnvironmentTable
    acts: EnvironmentOperations
    store: Callable[[], ImageStore]
    warning_seconds: int


@dataclass(frozen=True, slots=True)
class Move:
    """What became of a channel. `is_new` is False where it named that image before. `behind` run another one."""

    channel: str
    digest: str
    previous: str
    is_new: bool
    behind: Sequence[EnvironmentRef]
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Restarted:
    """How one environment took its restart; `error` is empty where it runs."""

    ref: EnvironmentRef
    error: str = ""


class ChannelOperations:
    """An administrator's acts on channels."""

    def __init__(self, parts: ChannelParts, recorded: Recorded) -> None:
        self._channels = parts.channels
        self._table = parts.table
        self._environments = parts.environments
        self._acts = parts.acts
        self._store = parts.store
        self._warning_seconds = parts.warning_seconds
        self._recorded = recorded

    def promote(self, text: str, to: str, reason: str) -> Move:
        """Let a channel name an image; one that it names already changes nothing.

        Raises:
            NotFoundError: `image.not-found`.
            UsageError: `image.bad-channel`, `image.bad-reference`, `image.ambiguous`.
        """
        name = parse_channel(to)
        with self._recorded.failing("image.promoted", channel=name, image=text):
            image = self._channels.choose(text)
            channel = self._channels.get(name)
            first = self._channels.first_move(channel, self._recorded.actor.name)
            previous = channel.digest or (first.digest if first else "")
            if channel.digest == image.digest:
                return Move(name, image.digest, previous, False, self._behind(name, image.digest), image.labels)
            move = ChannelMove(name, image.digest, "promoted", datetime.now(UTC), self._recorded.actor.name, reason)
            self._table.move(*([first] if first and first.digest != image.digest else []), move)
            self._name_on_engine(name, image.digest)
        detail = {"channel": name, "digest": image.digest, "previous": previous, "image": text, "why": reason}
        self._recorded.note("image.promoted", **detail)
        return Move(name, image.digest, previous, True, self._behind(name, image.digest), image.labels)

    def rollback(self, to: str, reason: str) -> Move:
        """Let a channel name the image before again.

        Raises:
            ConflictError: `image.no-earlier`; `image.channel-moved`, where somebody else moved it just now.
            NotFoundError: `image.not-found`, where the image before is gone from this host.
        """
        name = parse_channel(to)
        with self._recorded.failing("image.rolled-back", channel=name):
            channel = self._channels.get(name)
            if not channel.before:
                message = f"the channel {name} has no image before {short(channel.digest) or 'any'}"
                raise ConflictError("image.no-earlier", message, f"'devgw image promote IMAGE --to {name}' moves it")
            try:
                image = self._channels.find(channel.before)
            except NotFoundError as exc:
                message = f"the image before, {short(channel.before)}, is not on this host"
                hint = f"bring it back with 'devgw image pull' or 'import', or promote another one to {name}"
                raise NotFoundError("image.not-found", message, hint) from exc
            self._table.undo(channel.standing[-1], datetime.now(UTC), self._recorded.actor.name, reason)
            self._name_on_engine(name, image.digest)
            self._withdraw_restarts(name, image.digest)
        detail = {"channel": name, "digest": image.digest, "previous": channel.digest, "why": reason}
        self._recorded.note("image.rolled-back", **detail)
        return Move(name, image.digest, channel.digest, True, self._behind(name, image.digest), image.labels)

    def restart(self, move: Move, progress: Progress) -> Iterator[Restarted]:
        """Bring those that are behind, or failed to start, to the channel's image now; yield how each took it."""
        why = f"the channel {move.channel} names {short(move.digest)}"
        for ref in move.behind:
            progress(f"restarting {ref}")
            environment = self._environments.require(ref)
            try:
                if environment.state is EnvironmentState.RUNNING:
                    self._acts.remake(ref, why, progress)
                else:
                    self._acts.start(ref, progress)
            except DevgwError as exc:
                yield Restarted(ref, exc.message)
            else:
                yield Restarted(ref)

    def restart_after_warning(self, move: Move) -> datetime:
        """Have the gateway warn those that run another image, and restart them later; return when, at the earliest."""
        at = datetime.now(UTC) + timedelta(seconds=self._warning_seconds)
        for ref in move.behind:
            if self._environments.require(ref).state is EnvironmentState.RUNNING:
                self._environments.set_restart(ref, at)
        return at

    def _behind(self, channel: str, digest: str) -> list[EnvironmentRef]:
        return [one.ref for one in self._followers(channel) if one.image_digest != digest or _failed_to_start(one)]

    def _followers(self, channel: str) -> list[Environment]:
        """Return the environments of a channel that run, or should and could not be started."""
        return [
            one
            for one in self._environments.all()
            if is_of_channel(one.image, channel) and (one.state is EnvironmentState.RUNNING or _failed_to_start(one))
        ]

    def _withdraw_restarts(self, channel: str, digest: str) -> None:
        for one in self._followers(channel):
            if one.restart_at is not None and one.image_digest == digest:
                self._environments.set_restart(one.ref, None)

    def _name_on_engine(self, channel: str, digest: str) -> None:
        try:
            self._store().name(digest, name_of_channel(channel))
        except DevgwError as exc:  # the move stands: environments are started by digest
            _log.warning("%s could not be named on the engine: %s", name_of_channel(channel), exc.message)


def _failed_to_start(environment: Environment) -> bool:
    return environment.state is EnvironmentState.FAILED and environment.detail.startswith(_FAILED_START)
