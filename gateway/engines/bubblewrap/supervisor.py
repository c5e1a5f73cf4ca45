"""The small process above each sandbox: starts it, keeps its log, passes signals on, records how it ended.

It outlives the gateway and its terminal. SIGTERM asks the entrypoint to end, SIGUSR1 kills the whole tree; when the
supervisor itself dies, the kernel kills the sandbox, so that nothing ever runs unsupervised.
Run as `python -m gateway.engines.bubblewrap.supervisor DIRECTORY`, with an Order on standard input.
"""

import json
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from gateway.engines.bubblewrap import cgroups
from gateway.engines.bubblewrap.bwrap import NAMESPACES_HINT, Bwrap, spawn
from gateway.engines.bubblewrap.errors import failed, no_namespaces
from gateway.engines.bubblewrap.log import Log
from gateway.engines.bubblewrap.observe import out_of_memory
from gateway.engines.bubblewrap.order import Order
from gateway.engines.bubblewrap.process import Process
from gateway.engines.bubblewrap.records import Ended, Record, Running, ref_of
from gateway.engines.bubblewrap.staging import enter_own_mounts, stage
from gateway.errors import DevgwError, EngineError

_LOOK_SECONDS = 1.0
_TRIALS = 3
_CHANCE = "Failed RTM_NEWADDR: No child processes"  # bwrap 0.8 misreads the kernel's answer once in some hundred starts


def main() -> int:
    """Supervise one environment from its start to its end."""
    directory = Path(sys.argv[1])
    order = Order.read(json.load(sys.stdin))
    if os.fork() != 0:  # whoever started us need not wait for us
        return 0
    ref = ref_of(directory.name)
    if ref is None:
        raise SystemExit(f"supervisor: error: {directory} is not an environment's directory")
    os.chdir(directory)  # staging hides /tmp, and the directory may lie there
    record = Record(ref, Path())
    signals = _collect_signals()
    with os.fdopen(order.report, "w") as report:
        os.set_inheritable(order.report, False)
        try:
            bwrap, groups, log = _start(order, record)
        except BaseException as exc:
            record.forget_run()
            cgroups.remove(order.made_groups)
            problem = exc if isinstance(exc, DevgwError) else failed("start the sandbox", repr(exc))
            json.dump({"code": problem.code, "message": problem.message, "hint": problem.hint}, report)
            raise
        json.dump({"code": "", "message": "", "hint": ""}, report)
    _follow(bwrap, log, signals)
    _record_end(record, order, bwrap, groups)
    return 0


def _start(order: Order, record: Record) -> tuple[Bwrap, tuple[Path, ...], Log]:
    """Set everything up and write down that it runs; on failure nothing does."""
    os.umask(0o077)
    groups = cgroups.own_group() if order.in_scope else order.made_groups
    log = Log(record.log)
    try:
        enter_own_mounts()
    except OSError as exc:
        raise no_namespaces(str(exc), NAMESPACES_HINT) from exc
    try:
        staged = stage(order.sandbox)
    except OSError as exc:
        raise failed("lay out the sandbox", str(exc)) from exc
    bwrap = _spawn(order, staged, lambda first: record.write_running(Running(Process.own(), first, groups)))
    log.write(bwrap.first_words)
    return bwrap, groups, log


def _spawn(order: Order, staged: dict[str, str], note_first: Callable[[Process], None]) -> Bwrap:
    """Start bwrap and see it through its set-up; what it fails at by chance is tried again."""
    for left in reversed(range(_TRIALS)):
        try:
            bwrap = spawn(order, staged, note_first)
            try:
                bwrap.wait_until_up()
            except BaseException:
                bwrap.kill()
                raise
        except EngineError as exc:
            if left == 0 or _CHANCE not in exc.message:
                raise
        else:
            return bwrap
    raise AssertionError  # the last trial returns or raises


def _follow(bwrap: Bwrap, log: Log, signals: int) -> None:
    """Keep the log and pass signals on until nothing inside is left to write."""
    while True:
        readable, _, _ = select.select([bwrap.output, signals], [], [], _LOOK_SECONDS)
        if signals in readable:
            received = set(os.read(signals, 512))
            if signal.SIGUSR1 in received:
                bwrap.kill()
            elif signal.SIGTERM in received:
                bwrap.ask_to_end()
        if bwrap.output in readable:
            content = os.read(bwrap.output, 65_536)
            if not content:
                return
            log.write(content)


def _record_end(record: Record, order: Order, bwrap: Bwrap, groups: tuple[Path, ...]) -> None:
    code = bwrap.exit_code()
    detail = out_of_memory(groups, order.memory_bytes)
    record.write_ended(Ended(code, detail))
    cgroups.remove(order.made_groups)


def _collect_signals() -> int:
    """Return a descriptor from which arrived signals are read as bytes."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, lambda _number, _frame: None)
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    return reading


if __name__ == "__main__":
    sys.exit(main())
