"""Start several processes of one script by torchrun, and keep what torchrun loses: exit codes and SIGUSR1.

Run as `python -m devgw_runner.parallel.launch --nproc N -- script args`.
"""

import argparse
import os
import signal
import sys
from pathlib import Path
from types import FrameType

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser, run

from devgw_runner.errors import EXIT_OWN_FAILURE, SIGNAL_EXIT_BASE
from devgw_runner.parallel.launcher import SHUTDOWN_SECONDS, VARIABLE, own_description


def main() -> int:
    """Run the script in N processes and return the exit code of the first that failed."""
    parser = argparse.ArgumentParser(prog="devgw_runner.parallel.launch")
    parser.add_argument("--nproc", type=int, required=True)
    parser.add_argument("--torchrun", action="append", default=[], help="an argument for torchrun")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    signal.signal(signal.SIGUSR1, _forward_to_children)
    os.environ[VARIABLE] = own_description()
    return launch(options.nproc, command, options.torchrun or ["--standalone", "--max-restarts=0"])


def launch(processes: int, command: list[str], meeting: list[str]) -> int:
    """Run `command` (script and arguments, or -m module and arguments) under torchrun; `meeting`: how nodes meet."""
    arguments = [*meeting, f"--nproc-per-node={processes}"]
    parser = get_args_parser()
    if "--shutdown-timeout" in parser.format_help():  # newer than torch 2.8
        arguments.append(f"--shutdown-timeout={SHUTDOWN_SECONDS:.0f}")
    try:
        run(parser.parse_args([*arguments, *command]))  # type: ignore[no-untyped-call]  # torch leaves it untyped
    except ChildFailedError as exc:
        code = exc.get_first_failure()[1].exitcode
        return SIGNAL_EXIT_BASE - code if code < 0 else code
    except SignalException as exc:
        return SIGNAL_EXIT_BASE + int(exc.sigval)
    except OSError as exc:
        print(f"devgw-run: error: cannot start {processes} processes: {exc}", file=sys.stderr)
        return EXIT_OWN_FAILURE
    return 0


def _forward_to_children(number: int, _frame: FrameType | None) -> None:
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text(encoding="ascii").split():
            os.kill(int(child), number)


if __name__ == "__main__":
    raise SystemExit(main())
