"""Images come to this host: built, pulled or imported, with who, when and why written down by digest."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO

from gateway.engines.image_builder import BuildProgress, ImageBuilder
from gateway.engines.image_store import ImageStore
from gateway.engines.interface import Image, Progress
from gateway.images.build import BuildPlan, BuiltImage, ImageRequest, build_image
from gateway.images.channels import Channels
from gateway.images.references import short
from gateway.operations.recorded import Recorded
from gateway.store.images import ChannelMove, ImageRecord, ImageTable, Origin

KEPT_NAME = "devgw/image"
"""Repository of the name that a brought image keeps when its own moves on: `devgw/image:<12 digits of the digest>`."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a build led to, and whether its channel names it now; one that an administrator moved stays."""

    image: BuiltImage
    digest: str
    is_in_channel: bool


class ImageOperations:
    """An administrator's acts by which images come."""

    def __init__(
        self,
        builder: Callable[[], ImageBuilder],
        store: Callable[[], ImageStore],
        channels: Channels,
        table: ImageTable,
        recorded: Recorded,
    ) -> None:
        self._builder = builder
        self._store = store
        self._channels = channels
        self._table = table
        self._recorded = recorded

    def build(
        self, request: ImageRequest, plan: BuildPlan, show: Callable[[BuildProgress], None], reason: str = ""
    ) -> Built:
        """Build an image unless one of the same content is there, which is no act. Raises: EngineError."""
        channel, by = self._channels.get(plan.profile.name), self._recorded.actor.name
        first = self._channels.first_move(channel, by)
        with self._recorded.failing("image.built", profile=request.profile, image=plan.tag):
            built = build_image(request, self._builder(), plan, show, moves_alias=not channel.is_held)
            digest = self._channels.find(plan.tag).digest
            if built.is_new:
                self._add(digest, "built", request.profile, reason)
            if not channel.is_held and channel.digest != digest:
                move = ChannelMove(channel.name, digest, "built", datetime.now(UTC), by, reason)
                self._table.move(*([first] if first and first.digest != digest else []), move)
        is_in_channel = not channel.is_held or channel.digest == digest
        if built.is_new:
            detail = {"profile": request.profile, "image": built.tag, "alias": plan.alias, "digest": digest}
            self._recorded.note("image.built", **detail, in_channel=is_in_channel, why=reason)
        return Built(built, digest, is_in_channel)

    def pull(self, reference: str, reason: str, progress: Progress) -> Image:
        """Bring an image from a registry; no channel moves. Raises: EngineError `image.pull-failed`."""
        with self._recorded.failing("image.pulled", image=reference):
            image = self._store().pull(reference, progress)
            self._keep(image, "pulled", reference, reason)
        self._recorded.note("image.pulled", image=reference, digest=image.digest, why=reason)
        return image

    def load(self, archive: IO[bytes], source: str, reason: str, progress: Progress) -> Image:
        """Bring an image in an archive; no channel moves. Raises: EngineError `image.import-failed`."""
        with self._recorded.failing("image.imported", source=source):
            image = self._store().load(archive, progress)
            self._keep(image, "imported", source, reason)
        self._recorded.note("image.imported", source=source, image=image.reference, digest=image.digest, why=reason)
        return image

    def _keep(self, image: Image, origin: Origin, source: str, reason: str) -> None:
        self._store().name(image.digest, f"{KEPT_NAME}:{short(image.digest)}")
        self._add(image.digest, origin, source, reason)

    def _add(self, digest: str, origin: Origin, source: str, reason: str) -> None:
        self._table.add(ImageRecord(digest, origin, source, datetime.now(UTC), self._recorded.actor.name, reason))
