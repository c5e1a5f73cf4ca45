"""`devgw-project`: says what has become of the workspace's `devcontainer.json`, and lets its user choose another."""

import argparse
import sys
from pathlib import Path

from devgw_environment.contract import Environment
from devgw_environment.project import carry_out
from devgw_environment.project.commands import Stopped, stop_on_signals
from devgw_environment.project.errors import ProjectError
from devgw_environment.project.locate import list_projects
from devgw_environment.project.remarks import brief
from devgw_environment.project.state import OFF, StateFolder, describe
from devgw_environment.project.text import shown

FAILED, INTERRUPTED = 1, 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    asked = _parser().parse_args(arguments)
    stop_on_signals()
    try:
        return _run(asked, Environment.from_process())
    except ProjectError as error:
        print(f"devgw-project: error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return FAILED
    except (Stopped, KeyboardInterrupt):
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="devgw-project", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("status", help="what has become of it, and which projects there are (the default)")
    use = commands.add_parser("use", help="choose a project and carry it out, now and at each start")
    use.add_argument("folder", type=Path, help="its folder in the workspace, or one of its dev containers")
    commands.add_parser("run", help="run the commands of the project again")
    commands.add_parser("off", help="carry none out, and take its variables away")
    return parser


def _run(asked: argparse.Namespace, environment: Environment) -> int:
    carrying_out = carry_out.CarryingOut(environment, echo=_echo, log=_leave_out)
    if asked.command == "use":
        # from the current folder (`~/workspace` is a link), or by its name in the workspace from wherever
        chosen = asked.folder.resolve() if asked.folder.exists() else asked.folder
        return _told(carrying_out.run(chosen=chosen, again=True), environment)
    if asked.command == "run":
        return _told(carrying_out.run(again=True), environment)
    if asked.command == "off":
        carrying_out.turn_off()
    return _told(True, environment)


def _told(is_well: bool, environment: Environment) -> int:
    """Say how it stands; new sessions have its variables."""
    folder = StateFolder.of(environment)
    state = folder.read()
    last = describe(state.last)
    if state.chosen == OFF:
        print("no project is carried out here: devgw-project use FOLDER")
    elif last["outcome"] in {"", "none"}:
        print(f"{environment.workspace} itself has no devcontainer.json, and no other project was chosen")
    elif last["outcome"] == "refused":
        print(f"refused: {last['detail']}")  # which names the file or the folder
    else:
        running = last["outcome"] == "running"
        outcome = "interrupted" if running and not folder.is_held() else last["outcome"]
        detail = f": {last['detail']}" if last["detail"] else ""
        print(f"{shown(last['file'] or state.chosen)}: {outcome}{detail}")
        if last["remarks"]:
            print(last["remarks"])
        if folder.log.exists():
            print(f"output: {brief(folder.log, environment.home)}")
    others = [file.label for file in list_projects(environment.workspace) if str(file.path) != last["file"]]
    for label in others[:20]:
        print(f"also here: {label}")
    return 0 if is_well else FAILED


def _leave_out(_event: str, **_details: object) -> None:
    """The environment's log is its init's; a person is told how it stands at the end."""


def _echo(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
