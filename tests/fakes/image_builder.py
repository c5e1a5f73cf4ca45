"""A builder that makes no image, but goes through the steps of one and remembers its labels."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import IO

from gateway.engines.image_builder import BuildProgress, Progress
from gateway.engines.interface import Image
from tests.fakes.engine import FakeDaemon

_CONTENTS = {"distribution": "debian 12", "python": "3.11.2", "torch": "2.13.0+cpu", "cuda": None, "packages": {}}
_STEPS = ("FROM base", "RUN install")


class FakeImageBuilder:
    """Builds into a fake daemon: each build is an image of its own."""

    def __init__(self, daemon: FakeDaemon | None = None) -> None:
        self.daemon = daemon or FakeDaemon()
        self._made = 0

    def find(self, reference: str) -> Image:
        """Find an image as the engine would."""
        return self.daemon.image(reference)

    def has_image(self, tag: str) -> bool:
        return tag in self.daemon.images

    def build(
        self,
        context: IO[bytes],
        *,
        tag: str | None,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        progress: Progress,
    ) -> str:
        for number, line in enumerate(_STEPS, start=1):
            progress(BuildProgress(number, len(_STEPS), f"Step {number}/{len(_STEPS)} : {line}"))
            progress(BuildProgress(number, len(_STEPS), "output of this step"))
        if tag is not None:
            self._made += 1
            self.daemon.images[tag] = Image(tag, f"sha256:{self._made:032x}{'b' * 32}", dict(labels))
        return "sha256:made"

    def name_image(self, image: str, tag: str) -> None:
        self.daemon.images[tag] = replace(self.daemon.image(image), reference=tag)

    def read_file(self, image: str, path: str) -> bytes:
        return json.dumps(_CONTENTS).encode()

    def read_labels(self, image: str) -> dict[str, str]:
        return self.daemon.image(image).labels
