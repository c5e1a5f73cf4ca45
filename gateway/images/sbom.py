"""The bill of materials of an image, in CycloneDX 1.6 as JSON, and its copy beside the state.

The door of cyclonedx-python-lib.
"""

import contextlib
import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path

from gateway.images.contents import Contents, Kind, Package

_PREFIX = "devgw:"
_KINDS: dict[str, Kind] = {"deb": "deb", "pypi": "pypi", "conda": "conda"}


def write_sbom(digest: str, name: str, contents: Contents) -> str:
    """Return the bill of materials of an image; the same contents give the same text."""
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    distribution, _, release = contents.distribution.partition(" ")

    def component(package: Package) -> Component:
        namespace = distribution if package.kind == "deb" else None
        qualifiers = {"arch": package.architecture} if package.architecture else {}
        if package.kind == "deb" and release:
            qualifiers["distro"] = f"{distribution}-{release}"
        purl = PackageURL(package.kind, namespace, package.name, package.version, qualifiers)
        return Component(
            type=ComponentType.LIBRARY,
            name=package.name,
            version=package.version,
            purl=purl,
            bom_ref=purl.to_string(),
            properties=[Property(name=f"{_PREFIX}kind", value=package.kind)]
            + ([Property(name=f"{_PREFIX}arch", value=package.architecture)] if package.architecture else []),
        )

    image = Component(type=ComponentType.CONTAINER, name=name, version=digest, bom_ref=digest)
    if contents.distribution:
        image.properties.add(Property(name=f"{_PREFIX}distribution", value=contents.distribution))
    bom = Bom(components=map(component, contents.packages), serial_number=uuid.uuid5(uuid.NAMESPACE_URL, digest))
    bom.metadata.component = image
    bom.register_dependency(image, bom.components)
    bom.metadata.timestamp = None  # type: ignore[assignment] # so that the text depends on the contents alone
    return str(JsonV1Dot6(bom).output_as_string(indent=1))


def read_sbom(text: str) -> Contents:
    """Return the contents of which `write_sbom` made a bill. Raises: ValueError, KeyError."""
    document = json.loads(text)
    properties = document["metadata"]["component"].get("properties", [])
    distribution = next((one["value"] for one in properties if one["name"] == f"{_PREFIX}distribution"), "")
    return Contents(distribution, tuple(sorted(map(_package, document.get("components", [])))))


def _package(component: dict[str, object]) -> Package:
    properties = {one["name"]: one["value"] for one in component["properties"]}  # type: ignore[attr-defined]
    kind = _KINDS[properties[f"{_PREFIX}kind"]]
    return Package(kind, str(component["name"]), str(component["version"]), properties.get(f"{_PREFIX}arch", ""))


class Bills:
    """Bills of materials by digest. One of an image that never changes is read once and kept."""

    def __init__(self, directory: Path, read: Callable[[str], Contents], *, keeps: bool) -> None:
        """`read` looks into an image; `keeps` says whether what it finds there stays as it is."""
        self._directory = directory
        self._read = read
        self._keeps = keeps

    def contents(self, digest: str) -> Contents:
        """Return what is inside an image, also of one that is gone if it was read before."""
        kept = self._directory / f"{digest.removeprefix('sha256:')}.cdx.json"
        if self._keeps:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                return read_sbom(kept.read_text(encoding="utf-8"))
        contents = self._read(digest)
        if self._keeps:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh = kept.with_name(f".{kept.name}.{os.getpid()}")
            fresh.write_text(write_sbom(digest, "image", contents), encoding="utf-8")
            fresh.replace(kept)
        return contents
