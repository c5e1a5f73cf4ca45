"""What is there after the power went: sizes, use, and whose each file is."""

import errno
from pathlib import Path

import pytest
from conftest import ALICE, BOB, MIB, Site, as_user, fill

from gateway.environments.project_quota import KernelQuotas, opened


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_sizes_and_use_are_what_they_were(kind: str) -> None:
    """With a store that knows nothing any more: the disk itself says it."""
    site = Site(Path("/data", kind, "kept"))
    alice, bob = site.disks.use(ALICE), site.disks.use(BOB)
    assert alice is not None
    assert bob is not None
    assert (alice.size_bytes, bob.size_bytes) == (80 * MIB, 96 * MIB)
    assert bob.used_inodes == 50 + 5
    with opened(site.volumes(ALICE)) as alices, opened(site.volumes(BOB)) as bobs:
        assert KernelQuotas().project(alices) != KernelQuotas().project(bobs) != 0
    full = errno.ENOSPC if kind == "xfs" else errno.EDQUOT
    assert as_user(lambda: fill(site.volumes(ALICE) / "home/fill")) == full
