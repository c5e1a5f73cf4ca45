"""`NVIDIA_REQUIRE_*` of an image, parsed and held against a host.

Only the runtime hook reads these variables; under CDI a container starts all the same and fails later inside CUDA.
Form (docs.nvidia.com/datacenter/cloud-native/container-toolkit, "Constraints"): spaces are OR, commas are AND.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.doctor.versions import Version, parse_version

_TERM = re.compile(r"(?P<name>[a-z_]+)\s*(?P<sign>>=|<=|!=|==|=|<|>)\s*(?P<value>[A-Za-z0-9_.-]+)")
_VERSION_SIGNS: Mapping[str, Callable[[Version, Version], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
    "=": operator.eq, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip
_KNOWN_NAMES = frozenset({"cuda", "driver", "brand", "arch"})
_NUMBERS_COMPARED = 3
_NEVER_REQUIRED = frozenset({"NVIDIA_REQUIRE_JETPACK"})


@dataclass(frozen=True, slots=True)
class Host:
    """What a requirement is held against: CUDA as the driver offers it, the GPU's brand and compute capability."""

    cuda: str
    driver: str
    brand: str = ""
    arch: str = ""

    def value_of(self, name: str) -> str:
        """Return the value that a term's name stands for."""
        return {"cuda": self.cuda, "driver": self.driver, "brand": self.brand, "arch": self.arch}[name]


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison, such as `cuda>=12.8`."""

    name: str
    sign: str
    value: str

    def holds(self, host: Host) -> bool:
        """Compare; a fact that the host does not tell satisfies nothing."""
        actual = host.value_of(self.name)
        if self.name == "brand":
            return (actual.lower() == self.value.lower()) is (self.sign in {"=", "=="})
        found, wanted = parse_version(actual), parse_version(self.value)
        if found is None or wanted is None:
            return False
        return _VERSION_SIGNS[self.sign](_padded(found), _padded(wanted))

    def __str__(self) -> str:
        return f"{self.name}{self.sign}{self.value}"


Alternatives = tuple[tuple[Term, ...], ...]


def parse_requirement(text: str) -> Alternatives:
    """Read `cuda>=12.8 brand=tesla,driver>=535,driver<536`. Raises: ValueError, for a term of another form."""
    return tuple(tuple(_term(part) for part in group.split(",") if part) for group in text.split())


def unmet_requirements(variables: Mapping[str, str], host: Host) -> list[str]:
    """Return the `NVIDIA_REQUIRE_*` variables that this host does not satisfy; all of them must hold.

    Raises:
        ValueError: for a variable that is not of the form.
    """
    if variables.get("NVIDIA_DISABLE_REQUIRE", "").lower() in {"1", "true"}:
        return []
    unmet = []
    for name, text in sorted(variables.items()):
        if name.startswith("NVIDIA_REQUIRE_") and name not in _NEVER_REQUIRED and text.strip():
            alternatives = parse_requirement(text)
            if not any(all(term.holds(host) for term in group) for group in alternatives):
                unmet.append(name)
    return unmet


def _term(text: str) -> Term:
    match = _TERM.fullmatch(text)
    if match is None or match["name"] not in _KNOWN_NAMES:
        raise ValueError(f"{text[:60]!r} is not a requirement such as cuda>=12.8")
    if match["name"] == "brand" and match["sign"] not in {"=", "==", "!="}:
        raise ValueError(f"{text[:60]!r}: brands are equal or not")
    return Term(match["name"], match["sign"], match["value"])


def _padded(version: Version) -> Version:
    """Fill up with zeros: the hook compares `driver<536` with 535.86.05 number by number."""
    return (*version[:_NUMBERS_COMPARED], *(0,) * (_NUMBERS_COMPARED - len(version)))
