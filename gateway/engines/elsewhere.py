"""The images of an engine that keeps none where the gateway is: its nodes fetch them from a registry.

Whatever is asked of images on this host is refused with the way that leads there.
"""

from collections.abc import Callable
from typing import IO, NoReturn

from gateway.engines.image_store import PackageFiles, StoredImage
from gateway.engines.interface import Image, Progress
from gateway.errors import EngineError


def refuse_images(does: str) -> NoReturn:
    """Say that a cluster does not do this with images. Raises: EngineError `image.elsewhere`."""
    raise EngineError(
        "image.elsewhere",
        f"a cluster {does} no images: its nodes fetch them from a registry",
        "'devgw image build' on a host with Docker, push the image, and set environments.image to its name",
    )


class ImagesElsewhere:
    """An ImageStore in which nothing lies."""

    is_self_contained = True

    def all(self) -> list[StoredImage]:
        return []

    def pull(self, reference: str, progress: Progress) -> Image:  # noqa: ARG002 - an ImageStore's
        refuse_images("pulls")

    def load(self, archive: IO[bytes], progress: Progress) -> Image:  # noqa: ARG002
        refuse_images("imports")

    def name(self, digest: str, reference: str) -> None:  # noqa: ARG002
        refuse_images("names")

    def remove(self, digest: str) -> None:  # noqa: ARG002
        refuse_images("removes")

    def package_files(self, digest: str, is_wanted: Callable[[str], bool]) -> PackageFiles:  # noqa: ARG002
        refuse_images("opens")
