"""Facts of the gateway's own state: who may read it, whether it is whole, who has the port."""

import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from gateway.audit.verify import verify
from gateway.auth.authority import Authority
from gateway.config import Settings
from gateway.config.ssh import ETM_MACS
from gateway.doctor.facts import FileFacts, SiteFacts
from gateway.doctor.finding import Unasked
from gateway.duties import faults_of
from gateway.errors import DevgwError
from gateway.store.integrity import integrity_faults

_ANSWER_SECONDS = 2.0
_GREETING_BYTES = 64


def site_facts(
    settings: Settings,
    policy_file: Path,
    load_policy: Callable[[], object],
    holder: Callable[[str, int], str],
) -> SiteFacts:
    """Look at the site without making anything; what only another account may read is Unasked."""
    port = settings.server.port
    held_by = holder(settings.server.listen_address, port)
    return SiteFacts(
        is_initialised=settings.state_dir.is_dir() and settings.keys_dir.is_dir(),
        uid=os.geteuid(),
        config_file=settings.config_file,
        private=tuple(_files((settings.state_dir, settings.journal_dir, settings.keys_dir, settings.run_dir))),
        keys=tuple(_files(_private_keys(settings.keys_dir))),
        policy_error=_error_of(load_policy),
        policy_file=policy_file,
        database=_database(settings.database),
        journal=_journal(settings.journal_dir),
        port=port,
        host_key_fingerprint=Authority(settings.keys_dir).host_key_fingerprint(),
        opened_macs=tuple(mac for mac in settings.server.macs if mac not in ETM_MACS),
        port_holder=held_by,
        duties=faults_of(settings.duties_file, time.time()) if held_by == "devgw" else "",
    )


def port_holder(address: str, port: int) -> str:
    """Say who has a TCP port: nobody, `devgw`, or what in words."""
    try:
        with socket.create_connection((address or "localhost", port), timeout=_ANSWER_SECONDS) as peer:
            greeting = peer.recv(_GREETING_BYTES).decode(errors="replace").strip()
    except ConnectionRefusedError:
        return _why_not_bound(address, port)
    except OSError as exc:
        return f"{address or 'localhost'}: {exc.strerror or exc}"
    if greeting.startswith("SSH-2.0-devgw"):
        return "devgw"
    return f"something that says {greeting[:40]!r} listens there" if greeting else "something listens there"


def _why_not_bound(address: str, port: int) -> str:
    try:
        with socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET):
            return ""
    except OSError as exc:
        return (exc.strerror or str(exc)).lower()


def _files(paths: Iterable[Path]) -> Iterable[FileFacts]:
    for path in paths:
        try:
            found = path.stat()
        except OSError:  # absent, or behind a directory that is not ours: then that directory is judged
            continue
        yield FileFacts(path, found.st_mode, found.st_uid)


def _private_keys(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.is_file() and path.suffix != ".pub")
    except OSError:
        return []


def _error_of(load: Callable[[], object]) -> str:
    try:
        load()
    except DevgwError as exc:
        return exc.message
    return ""


def _database(url: str) -> str | Unasked:
    try:
        return integrity_faults(url)
    except DevgwError as exc:
        return Unasked(exc.message)


def _journal(directory: Path) -> str | Unasked:
    """Verify the last segment; nothing written yet is whole."""
    if not directory.exists():
        return "it is not there"
    try:
        problem = verify(directory, last_segments=1).problem
    except DevgwError as exc:
        return Unasked(exc.message)
    return "" if problem is None else f"{problem.file}, line {problem.line}: {problem.message}"
