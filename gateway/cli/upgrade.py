"""`devgw upgrade`: what this version changes in the database, and the change itself, after a copy."""

from typing import Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, command_app
from gateway.cli.output import Form, Output
from gateway.errors import ConflictError

app = command_app()


@app.command()
def upgrade(
    ctx: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Say what would change, and change nothing.")] = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Bring the database's tables to this version, after a copy of it. Any other command would do so too."""
    operations, out = invocation_of(ctx).app.administration.versions, Output(output, quiet=quiet)
    outlook = operations.look() if check else operations.upgrade()
    if not outlook.found:
        step = "there is no database yet; 'devgw init' makes one"
    elif outlook.changes:
        verb = "go" if check else "went"
        step = f"the tables {verb} from {outlook.found} to {outlook.wanted}, after a copy"
    else:
        step = "the tables are this version's"
    document = {
        "version": outlook.version,
        "schema": outlook.found,
        "wanted": outlook.wanted,
        "changes": outlook.changes,
        "problem": outlook.problem,
        "database_bytes": outlook.database_bytes,
        "free_bytes": outlook.free_bytes,
        "copies": [str(path) for path in outlook.kept],
    }
    rows = {
        "devgw": outlook.version,
        "tables": step,
        "copy needs": f"{outlook.database_bytes} bytes, {outlook.free_bytes} are free",
        "copies kept": ", ".join(path.name for path in outlook.kept) or "none",
    }
    out.facts(rows, document)
    if outlook.problem:
        raise ConflictError("upgrade.blocked", f"not like this: {outlook.problem}", "'devgw doctor' says more")
    if check and outlook.changes:
        out.note("take a backup first: 'devgw backup DIR'; 'devgw downgrade' goes one step back")
