"""`devgw init`: the directories, files and keys a gateway needs to start. Running it again is harmless."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.next_steps import next_line
from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.errors import DevgwError, StoreError

if TYPE_CHECKING:
    from gateway.app.composition import App
    from gateway.config import Settings

app = command_app()


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is there afterwards, and whether it was made just now."""

    what: str
    place: str
    outcome: str


@app.command()
def init(
    ctx: typer.Context,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Write devgw.toml and policy.toml anew; the old ones are kept as .bak. Never keys."
        ),
    ] = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Prepare this machine: configuration, policy, keys, database."""
    invocation = invocation_of(ctx)
    try:
        steps = list(_steps(invocation.settings, invocation.app, force=force))
    except OSError as exc:
        raise StoreError(
            "init.unwritable",
            f"{exc.filename or invocation.settings.state_dir}: {(exc.strerror or str(exc)).lower()}",
            "check owner and free space, or set DEVGW_CONFIG_DIR, DEVGW_STATE_DIR and DEVGW_RUN_DIR",
        ) from exc
    engine = _engine(invocation.app)
    out = Output(output, quiet=quiet)
    document = {"made": [{"what": s.what, "outcome": s.outcome, "place": s.place} for s in steps], "engine": engine}
    document["host_key_fingerprint"] = invocation.app.authority.host_key_fingerprint()
    out.done("\n".join(f"{s.what:13}  {s.outcome:12}  {s.place}" for s in steps), document)
    out.note(f"host key: {invocation.app.authority.host_key_fingerprint()}, which users compare with what ssh shows")
    out.note(_engine_line(engine))
    out.note(next_line(invocation.app, ["'devgw create USER --key FILE'", "'devgw serve'"], answers=engine["answers"]))


def _steps(settings: "Settings", gateway: "App", *, force: bool) -> Iterator[Step]:
    from gateway.cli.config_template import write_template

    yield _directory("configuration", settings.config_dir)
    yield _file("settings", settings.config_file, write_template, force=force)
    yield _file("policy", settings.config_dir / "policy.toml", _shipped_policy, force=force)
    yield _directory("state", settings.state_dir)
    yield _directory("journal", settings.journal_dir)
    yield _directory("runtime", settings.run_dir)
    yield from _keys(gateway)
    yield _database(gateway)


def _directory(what: str, place: Path) -> Step:
    made = not place.is_dir()
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Step(what, str(place), "made" if made else "was there")


def _file(what: str, place: Path, text: Callable[[], str], *, force: bool) -> Step:
    there = place.exists()
    if there and not force:
        return Step(what, str(place), "was there")
    if there:
        place.replace(place.with_name(f"{place.name}.bak"))
    place.write_text(text())
    return Step(what, str(place), "written anew" if there else "made")


def _shipped_policy() -> str:
    import policies

    return (Path(policies.__file__).parent / "default.toml").read_text()


def _keys(gateway: "App") -> Iterator[Step]:
    """Have the authority make the keys that are not there, and check those that are; none is ever replaced."""
    authority = gateway.authority
    for what, path, ensure in (
        ("host key", authority.host_keys[0], authority.host_key_line),
        ("user CA", authority.user_ca_key, authority.user_ca_line),
    ):
        made = not path.exists()
        ensure()
        yield Step(what, str(path), "made" if made else "was there")
    made = not gateway.head_key.private.exists()
    gateway.head_key.ensure(gateway.settings.journal_name)
    yield Step("journal key", str(gateway.head_key.private), "made" if made else "was there")


def _database(gateway: "App") -> Step:
    path = gateway.database.path
    made = path is not None and not path.exists()
    gateway.database.revision()
    return Step("database", str(path or "on its server"), "made" if made else "was there")


def _engine(gateway: "App") -> dict[str, Any]:
    """Ask the engine what it is; init may run before there is one, so its silence is no failure."""
    wanted = gateway.settings.engine.kind
    try:
        report = gateway.engine.report()
    except DevgwError as exc:
        return {"wanted": wanted, "answers": False, "problem": exc.message, "hint": exc.hint}
    return {
        "wanted": wanted,
        "answers": True,
        "name": report.name,
        "version": report.version,
        "gpu_injection": report.gpu_injection,
        "notes": list(report.notes),
    }


def _engine_line(engine: dict[str, Any]) -> str:
    asked = f"engine.kind is '{engine['wanted']}'"
    if engine["wanted"] == "auto":
        asked += " and Docker does not answer" if engine.get("name") == "bubblewrap" else " and it answers"
    if not engine["answers"]:
        return f"no engine answers yet: {engine['problem']}; {engine['hint']}"
    notes = f"; {'; '.join(engine['notes'])}" if engine["notes"] else ""
    gpus = f"GPUs by {engine['gpu_injection']}" if engine["gpu_injection"] != "none" else "no GPUs"
    return f"environments run on {engine['name']} {engine['version']}, for {asked}; {gpus}{notes}"
