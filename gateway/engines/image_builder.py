"""What an engine that can build images promises; one implementation stands in each engine's own folder.

What is built, and under which name, is decided in `environments/image_build.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Protocol


@dataclass(frozen=True)
class BuildProgress:
    """One line of a build and how far it is."""

    step: int
    steps: int
    line: str

    @property
    def percent(self) -> int:
        """Share of the steps that are done; the last step is not done before the build ends."""
        return 0 if self.steps == 0 else (self.step - 1) * 100 // self.steps


Progress = Callable[[BuildProgress], None]


class ImageBuilder(Protocol):
    """An engine that can build. Every method raises `EngineError` with a message fit for the administrator."""

    def has_image(self, tag: str) -> bool:
        """Whether an image of this name is on the engine."""
        ...

    def build(
        self,
        context: IO[bytes],
        *,
        tag: str | None,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        progress: Progress,
    ) -> str:
        """Build a tar ball's Dockerfile and return the image's id."""
        ...

    def name_image(self, image: str, tag: str) -> None:
        """Give an image one more name, taking it from the image that had it."""
        ...

    def read_file(self, image: str, path: str) -> bytes:
        """Read one file out of an image without running it."""
        ...

    def read_labels(self, image: str) -> dict[str, str]:
        """The labels of an image."""
        ...
