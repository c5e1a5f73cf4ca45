"""Bubblewrap under the contract: sandboxes for real, from a prepared root of busybox with nothing of the host's."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.engines.bubblewrap.engine import BubblewrapEngine
from gateway.engines.bubblewrap.network import find_stack
from gateway.engines.bubblewrap.records import Records
from gateway.engines.bubblewrap.software import PreparedRoots
from gateway.errors import EngineError
from gateway.model import Egress, EnvironmentRef, EnvironmentSpec, GpuUuid
from tests.contract.inside import Spool
from tests.contract.subject import EngineUnderTest, probe_script
from tests.engine.made_up_gpus import MADE_UP_GPUS, write_cdi_spec

IMAGE = "devgw-contract:probe"
_APPLETS = (
    *("sh", "cat", "chmod", "cp", "dd", "df", "echo", "env", "grep", "hostname", "id", "ls", "mkdir", "mv", "nc"),
    *("rm", "seq", "sleep", "tee", "touch", "timeout", "usleep", "wc"),
)


@contextmanager
def bubblewrap_under_test(directory: Path) -> Iterator[EngineUnderTest]:
    """Yield the engine as a gateway of its own, and remove whatever a test left there."""
    roots = PreparedRoots(directory / "images")
    make_probe_root(roots)
    write_cdi_spec(directory / "cdi")
    engine = BubblewrapEngine(directory / "one", f"test{secrets.token_hex(4)}", roots, (directory / "cdi",))

    def end(ref: EnvironmentRef, code: int) -> None:
        Spool(directory / f"run.{ref.user}.{ref.name}").quit(code)

    def interrupt_create(spec: EnvironmentSpec) -> None:
        Records(directory / "one").of(spec.ref).directory.mkdir(parents=True)

    try:
        yield EngineUnderTest(
            "bubblewrap",
            engine,
            BubblewrapEngine(directory / "two", f"other{secrets.token_hex(4)}", roots, (directory / "cdi",)),
            IMAGE,
            directory,
            interrupt_create,
            end,
            *(GpuUuid(uuid) for uuid in MADE_UP_GPUS[:2]),
            most_egress(),
        )
    finally:
        for observed in engine.observe_all():
            engine.delete(observed.ref)


def most_egress() -> Egress:
    """Return what this host lets a sandbox have; without a network stack or its device that is nothing."""
    try:
        find_stack(EnvironmentRef.parse("anyone"))
    except EngineError:
        return Egress.NONE
    return Egress.INTERNET


def make_probe_root(roots: PreparedRoots) -> None:
    """Lay busybox and the probe out as a prepared root."""
    busybox = shutil.which("busybox")
    assert busybox, "the contract suite's image needs a static busybox: 'apt-get install busybox-static'"
    tree = roots.directory / "probe" / "tree"
    for name, mode in (("bin", 0o755), ("tmp", 0o1777), ("run", 0o755), ("open", 0o777), ("etc", 0o755)):
        (tree / name).mkdir(parents=True)
        (tree / name).chmod(mode)
    shutil.copy(busybox, tree / "bin" / "busybox")
    (tree / "probe.sh").write_bytes(probe_script())
    (tree / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
    for applet in _APPLETS:
        (tree / "bin" / applet).symlink_to("busybox")
    manifest = {
        "digest": f"sha256:{'0' * 64}",
        "command": ["/bin/sh", "/probe.sh"],
        "variables": {"PATH": "/bin", "NVIDIA_VISIBLE_DEVICES": "all"},
        "labels": {"org.devgw.contract": "probe", "devgw.user": "mallory"},
    }
    roots.write("probe", manifest)
    roots.name(IMAGE, "probe")
