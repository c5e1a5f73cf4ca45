"""Leaves two disks on each file system and waits: the host takes the power away."""

import os
import time
from pathlib import Path

from conftest import ALICE, BOB, MIB, Site


def test_disks_are_made_and_the_power_goes() -> None:
    for kind in ("ext4", "xfs"):
        site = Site(Path("/data", kind, "kept"))
        (site.made(ALICE) / "file").write_bytes(b"x" * 8 * MIB)
        old = site.volumes(BOB) / "home"
        for number in range(50):
            (old / str(number)).write_bytes(b"x" * 1000)
        os.sync()
        site.made(BOB, 96)
        site.disks.grow(ALICE, 80 * MIB, in_use=True)  # what returned is to last
    print("guest: take the power away")
    time.sleep(300)
