"""A builder that makes no image, but goes through the steps of one and remembers its labels."""

import json
from collections.abc import Mapping
from typing import IO

from gateway.engines.image_builder import BuildProgress, Progress

_CONTENTS = {"distribution": "debian 12", "python": "3.11.2", "torch": "2.13.0+cpu", "cuda": None, "packages": {}}
_STEPS = ("FROM base", "RUN install")


class FakeImageBuilder:
    """Images by name, with their labels."""

    def __init__(self) -> None:
        self.images: dict[str, dict[str, str]] = {}

    def has_image(self, tag: str) -> bool:
        return tag in self.images

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
            self.images[tag] = dict(labels)
        return "sha256:made"

    def name_image(self, image: str, tag: str) -> None:
        self.images[tag] = self.images[image]

    def read_file(self, image: str, path: str) -> bytes:
        return json.dumps(_CONTENTS).encode()

    def read_labels(self, image: str) -> dict[str, str]:
        return self.images[image]
