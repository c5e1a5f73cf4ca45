"""What is inside images: their bills of materials, what differs between two, and what a scanner says of one."""

from pathlib import Path

from gateway.engines.image_store import ImageStore
from gateway.images.channels import Channels
from gateway.images.contents import Contents, Difference, differences, is_wanted, read_contents
from gateway.images.sbom import Bills, write_sbom
from gateway.images.scan import Report, find_scanner


class ImageContents:
    """Looks into images; nothing of them is run."""

    def __init__(self, channels: Channels, store: ImageStore, directory: Path) -> None:
        """`directory` keeps bills of materials."""
        self._channels = channels
        self._bills = Bills(
            directory,
            lambda digest: read_contents(store.package_files(digest, is_wanted)),
            keeps=store.is_self_contained,
        )

    def of(self, text: str) -> Contents:
        """Return what is inside an image. Raises: NotFoundError, EngineError."""
        return self._bills.contents(self._channels.choose(text).digest)

    def sbom(self, text: str) -> str:
        """Return the bill of materials of an image, CycloneDX as JSON. Raises: NotFoundError, EngineError."""
        digest = self._channels.choose(text).digest
        return write_sbom(digest, self._channels.canonical(text), self._bills.contents(digest))

    def diff(self, before: str, after: str) -> list[Difference]:
        """Return what differs between two images. Raises: NotFoundError, EngineError."""
        return differences(self.of(before), self.of(after))

    def scan(self, text: str) -> Report:
        """Ask the scanner that this host has. Raises: ConfigError `image.no-scanner`, EngineError."""
        scanner = find_scanner()
        return scanner.scan(self.sbom(text))
