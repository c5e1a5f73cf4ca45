"""What JupyterLab's status bar is told of the disk: only where a size is kept, and of what is nearer to its end."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from devgw_environment import disk_status as told
from devgw_environment.contract import Environment

from gateway.environments.disk_warnings import LEVELS

EXTENSION = Path(told.__file__).with_name("labextensions") / "devgw-disk"


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    (tmp_path / "disk.json").write_text('{"version": 1, "note": "ask the administrator"}')
    return Environment("alice", tmp_path, "/bin/sh", tmp_path, tmp_path, 4)


def disk(monkeypatch: pytest.MonkeyPatch, used: int, files: int = 0) -> None:
    """Have a disk of 100 blocks of 1 MiB and 1000 inodes."""
    counts = (2**20, 2**20, 100, 100 - used, 100 - used, 1000, 1000 - files, 1000 - files, 0, 255)
    monkeypatch.setattr(os, "statvfs", lambda _place: os.statvfs_result(counts))


@pytest.mark.parametrize(
    ("used", "files", "percent", "level"),
    [(0, 0, 0, 0), (79, 0, 79, 0), (80, 0, 80, 80), (94, 0, 94, 80), (95, 0, 95, 95), (10, 960, 96, 95)],
)
def test_levels_are_those_of_the_gateways_warnings(
    environment: Environment, monkeypatch: pytest.MonkeyPatch, used: int, files: int, percent: int, level: int
) -> None:
    """Bytes or inodes; the note is the gateway's, which names whom to ask."""
    disk(monkeypatch, used, files)
    found = told.disk_status(environment)
    assert (found["percent"], found["level"]) == (percent, level)
    assert (found["size_bytes"], found["used_bytes"]) == (100 * 2**20, used * 2**20)
    assert found["note"] == ("ask the administrator" if level else "")
    assert told.LEVELS == LEVELS


def test_without_a_size_that_is_kept_nothing_is_said(environment: Environment) -> None:
    """The host's own disk is none of a user's business; what cannot be read is no disk."""
    (environment.config_folder / "disk.json").write_text("half")
    assert told.disk_status(environment) == {}
    (environment.config_folder / "disk.json").unlink()
    assert told.disk_status(environment) == {}


def test_a_note_that_is_not_there_yet_is_made_up(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel knows sooner than the gateway's next look."""
    (environment.config_folder / "disk.json").write_text('{"note": ""}')
    disk(monkeypatch, 97)
    assert told.disk_status(environment)["note"] == "your disk is 97 % full: remove files"


def test_the_extension_is_what_jupyterlab_looks_for() -> None:
    """Its package names the file that is there, and the file gives itself the package's name."""
    package: dict[str, Any] = json.loads((EXTENSION / "package.json").read_text())
    script = (EXTENSION / package["jupyterlab"]["_build"]["load"]).read_text()
    assert f'const NAME = "{package["name"]}";' in script
    assert told.PATH in script
