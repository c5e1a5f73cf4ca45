"""Reads the unit by which systemd starts the gateway, and looks whether its account can run the program it names.

Only the unit's files are read: systemd itself is not asked, so that this works before it has loaded them.
"""

import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.doctor.facts import ServiceFacts
from gateway.doctor.finding import Unasked

_UNIT = "devgw.service"
_PLACES = ("etc", "run", "usr/local/lib", "usr/lib", "lib")
"""Where units lie, below each in systemd/system; of two of one name the first counts (systemd.unit(5))."""
_HOMES = ("/home", "/root", "/run/user")
_LINKS_MAX = 40
_READ, _RUN = 4, 1
_HIDING = frozenset({"yes", "true", "1", "on", "tmpfs"})


@dataclass(frozen=True, slots=True)
class _Account:
    uid: int
    groups: frozenset[int]


def service_facts(root: Path = Path("/")) -> ServiceFacts | Unasked | None:
    """Return what the unit says and what stands in its way; None where there is no unit that starts a program."""
    directories = [root / place / "systemd/system" for place in _PLACES]
    unit = next((place / _UNIT for place in directories if (place / _UNIT).is_file()), None)
    if unit is None:
        return None
    try:
        return _facts(unit, [unit, *_drop_ins(directories)])
    except PermissionError as exc:
        return Unasked(f"{exc.filename or unit} can be read by another account alone")


def _facts(unit: Path, files: list[Path]) -> ServiceFacts | None:
    said: dict[str, str] = {}
    for file in files:
        said |= dict(_directives(file))
    words = said.get("ExecStart", "").lstrip("@-:+!").split()
    if not words:
        return None
    account, program = said.get("User") or "root", Path(words[0].strip("\"'"))
    try:
        program.stat()
    except FileNotFoundError:
        return ServiceFacts(unit, account, program, f"{program} is not there", is_absent=True)
    return ServiceFacts(unit, account, program, _obstacle(program, account, said.get("ProtectHome", "")))


def _drop_ins(directories: list[Path]) -> list[Path]:
    """Return the files beside the unit, sorted by name as systemd reads them."""
    found: dict[str, Path] = {}
    for place in reversed(directories):
        found |= {file.name: file for file in (place / f"{_UNIT}.d").glob("*.conf")}
    return [found[name] for name in sorted(found)]


def _directives(file: Path) -> Iterator[tuple[str, str]]:
    """Yield what stands under [Service]; what is given twice counts as given last."""
    section = ""
    for line in file.read_text(errors="replace").splitlines():
        name, equals, value = line.strip().partition("=")
        if name.startswith("["):
            section = name
        elif equals and section == "[Service]" and not name.startswith(("#", ";")):
            yield name.strip(), value.strip()


def _obstacle(program: Path, name: str, protect_home: str) -> str:
    """Say what keeps the account from the program, its interpreter or its code; empty where nothing does."""
    account = _account(name)
    if account is None:
        return f"there is no account {name}"
    for path, rights in _needed(program):
        *directories, file = _steps(path)
        for step, wanted in (*((directory, _RUN) for directory in directories), (file, rights)):
            if protect_home in _HIDING and _is_in_a_home(step):
                return f"ProtectHome={protect_home} hides {step} from it"
            if account.uid != 0 and (why := _denied(step, wanted, account)):
                return f"the account {name} {why}"
    return ""


def _is_in_a_home(step: Path) -> bool:
    return any(step.is_relative_to(home) for home in _HOMES)


def _needed(program: Path) -> Iterator[tuple[Path, int]]:
    """Yield the program, what its first line names, and the gateway's code beside it; with the rights they take."""
    yield program, _READ | _RUN
    first = program.read_bytes()[:256].split(b"\n", 1)[0]
    if first.startswith(b"#!") and (words := first[2:].decode(errors="replace").split()):
        yield Path(words[0]), _RUN
    for code in sorted(program.parent.parent.glob("lib/python3*/site-packages/gateway/__init__.py")):
        yield code, _READ


def _steps(path: Path) -> Iterator[Path]:
    """Yield every directory on the way to a file, those that its links go through included, and at last the file."""
    for _link in range(_LINKS_MAX):
        yield from reversed(path.parents)
        yield from reversed(path.parent.resolve().parents)
        yield path.parent.resolve()
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    yield path


def _denied(step: Path, wanted: int, account: _Account) -> str:
    try:
        found = step.stat()
    except PermissionError:
        raise
    except OSError as exc:
        return f"does not find {step}: {(exc.strerror or str(exc)).lower()}"
    shift = 6 if found.st_uid == account.uid else 3 if found.st_gid in account.groups else 0
    if found.st_mode >> shift & wanted == wanted:
        return ""
    verb = "read" if wanted == _READ else "enter" if stat.S_ISDIR(found.st_mode) else "run"
    return f"may not {verb} {step} (mode {found.st_mode & 0o777:04o})"


def _account(name: str) -> _Account | None:
    try:
        entry = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        return None
    return _Account(entry.pw_uid, frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid)))
