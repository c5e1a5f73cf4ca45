"""What is installed in an image, read from what its package managers wrote down: dpkg, Python, conda. Pure.

No file of an image is trusted to be well-formed; what cannot be read is no package.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from email.parser import HeaderParser
from typing import Literal

Kind = Literal["deb", "pypi", "conda"]
_DPKG = re.compile(r"var/lib/dpkg/(status|status\.d/[^/]+)")
_PYTHON = re.compile(r".*\.(dist-info/METADATA|egg-info/PKG-INFO|egg-info)")
_CONDA = re.compile(r".*conda-meta/[^/]+\.json")
_OS_RELEASE = frozenset({"etc/os-release", "usr/lib/os-release"})
_LONGEST = 200


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One installed package. `architecture` is empty where the manager does not say."""

    kind: Kind
    name: str
    version: str
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class Contents:
    """What is inside: the distribution as os-release(5) names it, such as `debian 12`, and every package once."""

    distribution: str = ""
    packages: tuple[Package, ...] = field(default_factory=tuple)


def is_wanted(path: str) -> bool:
    """Say whether a file, by its path without a leading slash, tells of packages."""
    path = path.removeprefix("./")
    return path in _OS_RELEASE or any(pattern.fullmatch(path) for pattern in (_DPKG, _PYTHON, _CONDA))


def read_contents(files: Iterable[tuple[str, bytes]]) -> Contents:
    """Return what the wanted files of an image say."""
    distribution = ""
    packages: set[Package] = set()
    for written, content in files:
        path, text = written.removeprefix("./"), content.decode(errors="replace")
        if path in _OS_RELEASE:
            distribution = _distribution(text) or distribution
        elif _DPKG.fullmatch(path):
            packages.update(_dpkg(text))
        elif _CONDA.fullmatch(path):
            packages.update(_conda(text))
        elif _PYTHON.fullmatch(path):
            packages.update(_python(text))
    return Contents(distribution, tuple(sorted(packages)))


def _distribution(text: str) -> str:
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    parts = (values.get(name, "").strip("\"' ") for name in ("ID", "VERSION_ID"))
    return " ".join(part for part in parts if part)[:_LONGEST]


def _dpkg(text: str) -> Iterator[Package]:
    for paragraph in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^(Package|Status|Version|Architecture): *(.+?) *$", paragraph, re.MULTILINE))
        is_installed = fields.get("Status", "install ok installed").endswith(" installed")  # status.d has no Status
        if is_installed:
            yield from _package("deb", fields.get("Package"), fields.get("Version"), fields.get("Architecture", ""))


def _python(text: str) -> Iterator[Package]:
    headers = HeaderParser().parsestr(text)
    name = headers.get("Name")
    yield from _package("pypi", re.sub(r"[-_.]+", "-", name).lower() if name else None, headers.get("Version"))


def _conda(text: str) -> Iterator[Package]:
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return
    if isinstance(found, dict):
        yield from _package("conda", found.get("name"), found.get("version"), found.get("subdir", ""))


def _package(kind: Kind, name: object, version: object, architecture: object = "") -> Iterator[Package]:
    if isinstance(name, str) and isinstance(version, str) and name and version:
        known = architecture if isinstance(architecture, str) else ""
        yield Package(kind, name[:_LONGEST], version[:_LONGEST], known[:_LONGEST])


@dataclass(frozen=True, slots=True)
class Difference:
    """One package that is not the same in two images; an empty version says that it is not there."""

    kind: Kind
    name: str
    before: str
    after: str


def differences(before: Contents, after: Contents) -> list[Difference]:
    """Return what was added, removed or changed from one image to another, by kind and name."""
    old, new = _versions(before), _versions(after)
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    return [Difference(kind, name, old.get((kind, name), ""), new.get((kind, name), "")) for kind, name in keys]


def _versions(contents: Contents) -> dict[tuple[Kind, str], str]:
    """Return the version of each package; of several installed beside each other, all."""
    found: dict[tuple[Kind, str], list[str]] = {}
    for package in contents.packages:
        versions = found.setdefault((package.kind, package.name), [])
        if package.version not in versions:
            versions.append(package.version)
    return {key: ", ".join(versions) for key, versions in found.items()}
