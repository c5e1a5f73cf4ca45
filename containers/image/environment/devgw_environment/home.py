"""The user's folders at the first start: shell start-up files and short ways to the other volumes."""

import os
import shutil
import stat
from pathlib import Path

from devgw_environment.contract import Environment
from devgw_environment.eventlog import log_event

VOLUMES = ("workspace", "checkpoints", "logs", "datasets")


def prepare_scratch(environment: Environment) -> None:
    """Make the folder for run-time files, readable by this user only; refuse one that somebody else made."""
    scratch = environment.scratch
    scratch.mkdir(mode=0o700, exist_ok=True)
    found = scratch.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise SystemExit(f"devgw-init: error: {scratch} is not a folder of this user's own")
    scratch.chmod(0o700)


def furnish_home(environment: Environment, root: Path = Path("/")) -> None:
    """Give an empty home the start-up files of the image and links to the volumes; never touch what is there."""
    try:
        copy_start_up_files(root / "etc" / "skel", environment.home)
        link_volumes(root, environment.home)
    except OSError as problem:
        log_event("home.unfurnished", home=environment.home, reason=problem)


def copy_start_up_files(skeleton: Path, home: Path) -> None:
    """Copy the skeleton's files into a home that has none of its own yet."""
    if (home / ".profile").exists() or not skeleton.is_dir():
        return
    for source in skeleton.iterdir():
        if source.is_file() and not (home / source.name).exists():
            shutil.copyfile(source, home / source.name)


def link_volumes(root: Path, home: Path) -> None:
    """Make `~/workspace` and the like lead to the volumes, because the notebook shows the home only."""
    for name in VOLUMES:
        link = home / name
        if (root / name).is_dir() and not link.is_symlink() and not link.exists():
            link.symlink_to(root / name)
