"""Known vulnerabilities of what an image holds, by a scanner that this host has: trivy or grype, on the image's SBOM.

Both work with the database they have and say how old it is; what they cannot look up here, devgw does not claim.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.errors import ConfigError, EngineError

SEVERITIES = ("unknown", "negligible", "low", "medium", "high", "critical")
_SECONDS = 900


@dataclass(frozen=True, slots=True)
class Vulnerability:
    """One known fault of one package; `fixed_in` is empty where no version mends it."""

    id: str
    package: str
    version: str
    severity: str
    fixed_in: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a scanner found, the worst first, and which scanner it was."""

    scanner: str
    found: tuple[Vulnerability, ...]

    def at_least(self, severity: str) -> list[Vulnerability]:
        """Return what is as bad as this, or worse."""
        return [one for one in self.found if SEVERITIES.index(one.severity) >= SEVERITIES.index(severity)]


@dataclass(frozen=True, slots=True)
class Scanner:
    """A program that reads a CycloneDX file, how it is called, and how its answer is read."""

    name: str
    program: str
    arguments: Callable[[str], list[str]]
    read: Callable[[Mapping[str, Any]], Iterator[Vulnerability]]

    def scan(self, sbom: str) -> Report:
        """Run it. Raises: EngineError `image.scan-failed`."""
        with tempfile.NamedTemporaryFile("w", suffix=".cdx.json", encoding="utf-8") as file:
            file.write(sbom)
            file.flush()
            command = [self.program, *self.arguments(file.name)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
            except subprocess.TimeoutExpired as exc:
                raise _failed(self.name, f"no answer within {_SECONDS // 60} minutes") from exc
            except OSError as exc:
                raise _failed(self.name, str(exc.strerror)) from exc
        if done.returncode != 0:
            raise _failed(self.name, done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no word why")
        try:
            found = sorted(self.read(json.loads(done.stdout)), key=_worst_first)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise _failed(self.name, f"its answer cannot be read ({type(exc).__name__}: {exc})") from exc
        return Report(self.name, tuple(dict.fromkeys(found)))


def find_scanner() -> Scanner:
    """Return a scanner on this host. Raises: ConfigError `image.no-scanner`."""
    for name, arguments, read in _KNOWN:
        program = shutil.which(name)
        if program:
            return Scanner(name, program, arguments, read)
    names = " or ".join(name for name, _arguments, _read in _KNOWN)
    hint = "install one; 'devgw image show IMAGE --sbom' writes what any scanner of CycloneDX reads"
    raise ConfigError("image.no-scanner", f"no scanner is installed here: {names} is looked for on the PATH", hint)


def _trivy(answer: Mapping[str, Any]) -> Iterator[Vulnerability]:
    for result in answer.get("Results") or []:
        for one in result.get("Vulnerabilities") or []:
            fixed = one.get("FixedVersion", "")
            severity = _severity(one.get("Severity", ""))
            yield Vulnerability(one["VulnerabilityID"], one["PkgName"], one["InstalledVersion"], severity, fixed)


def _grype(answer: Mapping[str, Any]) -> Iterator[Vulnerability]:
    for match in answer["matches"]:
        fault, package = match["vulnerability"], match["artifact"]
        fixed = ", ".join((fault.get("fix") or {}).get("versions") or [])
        yield Vulnerability(fault["id"], package["name"], package["version"], _severity(fault["severity"]), fixed)


_KNOWN: tuple[tuple[str, Callable[[str], list[str]], Callable[[Mapping[str, Any]], Iterator[Vulnerability]]], ...] = (
    ("trivy", lambda file: ["sbom", "--quiet", "--format", "json", file], _trivy),
    ("grype", lambda file: [f"sbom:{file}", "--quiet", "--output", "json"], _grype),
)


def _severity(text: str) -> str:
    return text.lower() if text.lower() in SEVERITIES else "unknown"


def _worst_first(one: Vulnerability) -> tuple[int, str, str]:
    return -SEVERITIES.index(one.severity), one.package, one.id


def _failed(scanner: str, why: str) -> EngineError:
    printable = "".join(char if char.isprintable() else " " for char in why)[:300]
    hint = f"'{scanner}' keeps a database of its own: does this host have one, or the way to it?"
    return EngineError("image.scan-failed", f"{scanner} could not judge the image: {printable}", hint)
