"""Command line of the init process: no argument starts the environment, the others are its parts.

`python -m devgw_environment` is what the image's entrypoint and the bubblewrap engine run.
"""

import sys

from devgw_environment.connect import run_connect
from devgw_environment.contract import Environment
from devgw_environment.health import check_sockets
from devgw_environment.listen import run_listener
from devgw_environment.ports import run_ports_listener
from devgw_environment.probe import run_probe
from devgw_environment.project.carry_out import run_project
from devgw_environment.status_reporter import run_status_reporter
from devgw_environment.supervise import run_supervisor

COMMANDS = {
    "init": run_supervisor,
    "listen": run_listener,
    "ports": run_ports_listener,
    "status-reporter": run_status_reporter,
    "probe": run_probe,
    "project": run_project,
    "check": check_sockets,
}


def main() -> int:
    """Run the command named by the first argument and return its exit status."""
    if sys.argv[1:2] == ["connect"] and len(sys.argv) == 4:
        return run_connect(Environment.from_process(), *sys.argv[2:])
    name = sys.argv[1] if len(sys.argv) > 1 else "init"
    command = COMMANDS.get(name)
    if command is None or len(sys.argv) > 2:
        print(f"usage: devgw-init [{'|'.join(COMMANDS)}|connect HOST PORT]", file=sys.stderr)
        return 2
    return command(Environment.from_process())


if __name__ == "__main__":
    sys.exit(main())
