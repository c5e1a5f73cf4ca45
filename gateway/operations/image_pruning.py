"""Old images go when nothing uses them: no channel, no environment, no rollback that may still be wanted."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from gateway.engines.image_store import ImageStore, StoredImage
from gateway.engines.interface import IMAGE_LABEL_PREFIX
from gateway.errors import ConflictError, DevgwError
from gateway.images.channels import Channels
from gateway.images.references import short
from gateway.model import EnvironmentState
from gateway.operations.recorded import Recorded
from gateway.store.environments import EnvironmentTable
from gateway.store.images import ImageTable


@dataclass(frozen=True, slots=True)
class Fate:
    """One image of devgw's: whether it goes, and who or what keeps it; `error` says why it could not go."""

    image: StoredImage
    kept_by: tuple[str, ...]
    error: str = ""

    @property
    def goes(self) -> bool:
        return not self.kept_by


class PruningOperations:
    """Says who uses each image, and removes what nobody does."""

    def __init__(
        self,
        channels: Channels,
        table: ImageTable,
        environments: EnvironmentTable,
        store: ImageStore,
        default_image: str,
        recorded: Recorded,
    ) -> None:
        self._channels = channels
        self._table = table
        self._environments = environments
        self._store = store
        self._default_image = default_image
        self._recorded = recorded

    def users(self, keep: int = 0) -> dict[str, list[str]]:
        """Return who uses an image, by digest, in words; with `keep`, the last ones of each channel too."""
        found: dict[str, list[str]] = {}
        for channel in self._channels.all():
            for age, move in enumerate(reversed(channel.standing)):
                if age == 0:
                    _add(found, move.digest, f"the channel {channel.name}")
                elif age < keep:
                    _add(found, move.digest, f"a rollback of the channel {channel.name}")
        for one in self._environments.all():
            if one.state is EnvironmentState.RUNNING and one.image_digest:
                _add(found, one.image_digest, f"{one.ref}, which runs it")
            _add(found, self._leads_to(one.image), f"{one.ref}, which starts from it")
        _add(found, self._leads_to(self._default_image), "the setting environments.image")
        return found

    def plan(self, keep: int, older_than_seconds: int) -> list[Fate]:
        """Return the fate of each image that devgw built or brought; others are nobody's business here."""
        records, users = self._table.all(), self.users(keep)
        youngest = datetime.now(UTC) - timedelta(seconds=older_than_seconds)
        fates = []
        for image in self._store.all():
            record = records.get(image.digest)
            if record is None and not any(label.startswith(IMAGE_LABEL_PREFIX) for label in image.labels):
                continue
            kept_by = list(users.get(image.digest, ()))
            if not kept_by and record is not None and record.at > youngest:
                kept_by.append("its age: it may be promoted yet")
            fates.append(Fate(image, tuple(kept_by)))
        return sorted(fates, key=lambda fate: (not fate.goes, fate.image.names))

    def prune(self, fates: Sequence[Fate]) -> list[Fate]:
        """Remove what goes; one that cannot go is no reason for the others to stay."""
        done = []
        for fate in (fate for fate in fates if fate.goes):
            try:
                self._remove(fate.image)
            except DevgwError as exc:
                done.append(Fate(fate.image, (), exc.message))
            else:
                done.append(fate)
        return done

    def remove(self, text: str) -> StoredImage:
        """Remove one image. Raises: ConflictError `image.in-use`, naming who uses it; NotFoundError."""
        digest = self._channels.choose(text).digest
        image = next(one for one in self._store.all() if one.digest == digest)
        users = self.users().get(digest)
        if users:
            message = f"the image {short(digest)} is used by {'; '.join(users)}"
            raise ConflictError("image.in-use", message, "move the channel, or stop or delete the environment, first")
        self._remove(image)
        return image

    def _remove(self, image: StoredImage) -> None:
        names = ", ".join(image.names)
        with self._recorded.act("image.pruned", digest=image.digest, names=names):
            self._store.remove(image.digest)

    def _leads_to(self, reference: str) -> str:
        try:
            return self._channels.choose(reference).digest
        except DevgwError:
            return ""


def _add(found: dict[str, list[str]], digest: str, user: str) -> None:
    if digest and user not in found.setdefault(digest, []):
        found[digest].append(user)
