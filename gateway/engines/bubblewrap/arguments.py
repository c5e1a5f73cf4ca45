"""A Sandbox in the words of bwrap(1). Pure. The hardening stands here as one readable list."""

from collections.abc import Iterator, Mapping

from gateway.engines.bubblewrap.sandbox import Sandbox

_ACCESS = {"read": "--ro-bind", "write": "--bind", "device": "--dev-bind"}


def arguments(sandbox: Sandbox, staged: Mapping[str, str]) -> list[str]:
    """Return bwrap's options. `staged` says where the source of each target lies for bwrap, temporary ones included."""
    return [*_confinement(sandbox), *_file_systems(sandbox, staged)]


def _confinement(sandbox: Sandbox) -> list[str]:
    """Invariants 1 and 3. bwrap itself sets no_new_privs and empties every capability set."""
    return [
        "--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts",
        "--unshare-cgroup-try",
        "--uid", str(sandbox.uid), "--gid", str(sandbox.gid), "--cap-drop", "ALL",
        "--hostname", sandbox.hostname,
        "--new-session",  # no terminal of the gateway's to push input into
        "--die-with-parent",  # nothing runs unsupervised
        "--chdir", "/",
    ]  # fmt: skip


def _file_systems(sandbox: Sandbox, staged: Mapping[str, str]) -> Iterator[str]:
    """Mount from the outside in, so that no mount hides an earlier one; then close the root and /dev."""
    steps: dict[str, list[str]] = {"/proc": ["--proc", "/proc"], "/dev": ["--dev", "/dev"]}
    for link in sandbox.links:
        steps[link.path] = ["--symlink", link.leads_to, link.path]
    for temporary in sandbox.temporaries:
        steps[temporary.target] = ["--bind", staged[temporary.target], temporary.target]
    for bind in sandbox.binds:
        steps[bind.target] = [_ACCESS[bind.access], staged[bind.target], bind.target]
    for target in sorted(steps, key=lambda path: path.split("/")):
        yield from steps[target]
    yield from ("--remount-ro", "/dev")
    if sandbox.read_only_root:
        yield from ("--remount-ro", "/")
