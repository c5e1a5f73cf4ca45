"""The images of a fake daemon: those it has, those a made-up registry has, and archives that hold one's JSON."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import IO

from gateway.engines.image_store import PackageFiles, StoredImage, import_failed, refuse_in_use
from gateway.engines.interface import Image, Progress
from gateway.errors import EngineError, NotFoundError
from tests.fakes.engine import FakeDaemon


class FakeImageStore:
    """Names lead to digests in the daemon's `images`; `image_files` what is inside, by digest."""

    is_self_contained = True

    def __init__(self, daemon: FakeDaemon) -> None:
        self.daemon = daemon
        self.reads = 0

    def all(self) -> list[StoredImage]:
        by_digest: dict[str, list[Image]] = {}
        for image in self.daemon.images.values():
            by_digest.setdefault(image.digest, []).append(image)
        return [
            StoredImage(digest, tuple(sorted(one.reference for one in images)), dict(images[0].labels), 1000)
            for digest, images in by_digest.items()
        ]

    def pull(self, reference: str, progress: Progress) -> Image:
        progress("pulling")
        if reference not in self.daemon.registry:
            raise EngineError("image.pull-failed", f"cannot pull {reference}: not found", "is the name right?")
        return self._come(reference, self.daemon.registry[reference])

    def load(self, archive: IO[bytes], progress: Progress) -> Image:
        try:
            found = json.loads(archive.read())
        except ValueError as exc:
            raise import_failed("it is no archive", "'docker save IMAGE' writes one") from exc
        return self._come(found["name"], Image(found["name"], found["digest"], found["labels"]))

    def name(self, digest: str, reference: str) -> None:
        self.daemon.images[reference] = replace(self._found(digest), reference=reference)

    def remove(self, digest: str) -> None:
        self._found(digest)
        users = [str(ref) for (_, ref), one in self.daemon.containers.items() if one.spec.image == digest]
        if users:
            refuse_in_use(digest, ", ".join(users))
        for name in [name for name, one in self.daemon.images.items() if one.digest == digest]:
            del self.daemon.images[name]

    def package_files(self, digest: str, is_wanted: Callable[[str], bool]) -> PackageFiles:
        self.reads += 1
        self._found(digest)
        return ((path, content) for path, content in self.daemon.image_files.get(digest, {}).items() if is_wanted(path))

    def _come(self, reference: str, image: Image) -> Image:
        self.daemon.images[reference] = replace(image, reference=reference)
        self.daemon.first_words.setdefault(reference, "")
        return self.daemon.images[reference]

    def _found(self, digest: str) -> Image:
        for image in self.daemon.images.values():
            if image.digest == digest:
                return image
        raise NotFoundError("image.not-found", f"no image {digest[:19]}", "'devgw image list' shows all")
