"""Carries a project's file out: its variables, then its commands, each once for a content; a login is told the rest.

Nothing here keeps an environment from starting: it runs beside the services, and what fails is written down.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from devgw_environment.contract import Environment
from devgw_environment.eventlog import log_event
from devgw_environment.login_variables import read_login_variables
from devgw_environment.project.commands import Place, Stopped, run_commands, stop_on_signals
from devgw_environment.project.document import EACH_START, ONCE, Document, Step, parse
from devgw_environment.project.errors import ProjectError
from devgw_environment.project.locate import ProjectFile, choose_file, find_file, list_projects, read_file
from devgw_environment.project.log_file import LogFile
from devgw_environment.project.remarks import brief, remark
from devgw_environment.project.state import OFF, State, StateFolder
from devgw_environment.project.substitution import substitute
from devgw_environment.project.text import shown
from devgw_environment.project.variables import settle_variables, shell_lines, with_variables
from devgw_environment.sshd import session_variables

LIMIT_SECONDS = 3600.0
"""For all commands of a file together; what takes longer belongs into an image."""
WITHOUT_PROJECT = "DEVGW_NO_PROJECT"
"""A shell that has it reads no variables of a project: what they are made from must not hold them already."""


@dataclass
class CarryingOut:
    """One run over an environment's project; `echo` gets what its commands print, `log` what becomes of it."""

    environment: Environment
    echo: Callable[[bytes], None] = field(default=lambda _: None)
    log: Callable[..., None] = log_event
    limit_seconds: float = LIMIT_SECONDS

    def __post_init__(self) -> None:
        self.folder = StateFolder.of(self.environment)
        self.workspace = self.environment.workspace

    def run(self, *, again: bool = False, chosen: Path | None = None) -> bool:
        """Carry the project out; whether nothing went wrong. `again` repeats what has run.

        Raises:
            ProjectError: another run goes on, the home takes no file, or `chosen` names no project.
        """
        with self.folder.alone():
            state = self.folder.read()
            if chosen is not None:
                state.chosen = str(find_file(self.workspace, chosen).path)
            try:
                return self._carry_out(state, again=again)
            except ProjectError as error:
                state.last = {"file": state.chosen}
                self._end(state, "refused", error.message)
                said = f"devgw: the project is not carried out: {error.message}"
                self._tell(each_time=f"{said} ({error.hint})" if error.hint else said)
                return False

    def turn_off(self) -> None:
        """Carry nothing out from now on, and take the variables away. Raises: ProjectError."""
        with self.folder.alone():
            state = self.folder.read()
            state.chosen = OFF
            self._forget(state)

    def _carry_out(self, state: State, *, again: bool) -> bool:
        file = self._file(state)
        if file is None:
            self._forget(state)
            return True
        content = read_file(file, self.workspace)
        try:
            document = parse(content)
        except ProjectError as error:
            raise ProjectError(f"{file.label}: {error.message}", error.hint) from error
        given = self._login_variables()
        variables, refused = settle_variables(document.variables, file.folder, given)
        self.folder.set_variables(shell_lines(variables))
        state.last = {"file": str(file.path), "remarks": remark(document, refused, self.environment, given)}
        digest = hashlib.sha256(content).hexdigest()
        fields = [*(ONCE if again or state.ran.get(str(file.path)) != digest else ()), *EACH_START]
        fields = [name for name in fields if name in document.commands]
        session = with_variables(given, variables)
        failure = self._run_fields(state, file, document, fields, session) if fields else ""
        state.ran.pop(str(file.path), None)
        state.ran[str(file.path)] = digest  # the newest comes last
        self._end(state, "failed" if failure else "ended", failure or ", ".join(fields))
        self._tell_end(file, failure, str(state.last["remarks"]))
        return not failure

    def _file(self, state: State) -> ProjectFile | None:
        if state.chosen == OFF:
            return None
        return find_file(self.workspace, Path(state.chosen)) if state.chosen else choose_file(self.workspace)

    def _run_fields(
        self, state: State, file: ProjectFile, document: Document, fields: list[str], session: dict[str, str]
    ) -> str:
        """Run the fields one after another up to the first that fails; returns what went wrong."""
        log = LogFile(self.folder.log)
        place = Place(file.folder, session, self._writer(log))
        self._end(state, "running", ", ".join(fields))
        self._tell(each_time=f"devgw: {', '.join(fields)} of {file.label} began; 'devgw-project' says how far it is")
        deadline = time.monotonic() + self.limit_seconds
        try:
            for name in fields:
                place.write(f"[devgw: {name}]\n".encode())
                steps = {key: _settled(step, file.folder, session) for key, step in document.commands[name].items()}
                if failure := run_commands(name, steps, place, deadline):
                    place.write(f"[devgw: {failure}]\n".encode())
                    return failure
        except (Stopped, KeyboardInterrupt):
            self._end(state, "interrupted", name)
            self._tell(each_time=f"devgw: {name} of {file.label} was interrupted; 'devgw-project run' repeats it")
            raise
        finally:
            log.close()
        return ""

    def _writer(self, log: LogFile) -> Callable[[bytes], None]:
        def write(data: bytes) -> None:
            log.write(data)
            self.echo(data)

        return write

    def _login_variables(self) -> dict[str, str]:
        """What a login shell of this user has, without those of a project."""
        environment = self.environment
        own = {"HOME": str(environment.home), "USER": environment.user, "LOGNAME": environment.user}
        given = {**session_variables(environment), **own, "SHELL": environment.shell, WITHOUT_PROJECT: "1"}
        found = read_login_variables(environment.shell, environment.home, given)
        return {name: value for name, value in found.items() if name != WITHOUT_PROJECT}

    def _forget(self, state: State) -> None:
        """There is no project: say where one could be, once."""
        self.folder.set_variables("")
        self._end(state, "none", "")
        files = [] if state.chosen == OFF else list_projects(self.workspace)
        names = list(dict.fromkeys(shown(file.folder.name, 40) for file in files))
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        said = f"devgw: {', '.join(names[:5])}{more} in {self.workspace} can be set up: devgw-project use FOLDER"
        self._tell(once=said if names else "")

    def _tell_end(self, file: ProjectFile, failure: str, remarks: str) -> None:
        log = brief(self.folder.log, self.environment.home)
        failed = f"devgw: {file.label}: {failure}; see {log}, 'devgw-project run' tries again"
        self._tell(each_time=failed if failure else "", once=f"devgw: {file.label}: {remarks}" if remarks else "")

    def _tell(self, *, each_time: str = "", once: str = "") -> None:
        self.folder.tell(each_time=each_time and f"{each_time}\n", once=once and f"{once}\n")

    def _end(self, state: State, outcome: str, detail: str) -> None:
        state.last = {**state.last, "outcome": outcome, "detail": detail}
        self.folder.keep(state)
        self.log(f"project.{outcome}", file=state.last.get("file", ""), detail=detail)


def _settled(step: Step, folder: Path, variables: dict[str, str]) -> Step:
    if isinstance(step, str):
        return substitute(step, folder, variables)
    return tuple(substitute(word, folder, variables) for word in step)


def run_project(environment: Environment) -> int:
    """What the init process starts beside its services, once."""
    stop_on_signals()
    carrying_out = CarryingOut(environment)
    if not carrying_out.folder.path.exists() and not list_projects(carrying_out.workspace):
        return 0  # most homes: nothing is written into them
    try:
        return 0 if carrying_out.run() else 1
    except ProjectError as error:
        log_event("project.unusable", reason=error.message)
    except Stopped:
        log_event("project.stopped")
    return 1
