"""`devgw audit verify`, `head` and `prune`: is the journal whole, where does it end, and where may it begin."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import Invocation, invocation_of
from gateway.cli.options import JournalOption, OutputOption, QuietOption, YesOption
from gateway.cli.output import Form, Output
from gateway.errors import JournalError

if TYPE_CHECKING:
    from gateway.audit.heads import Head
    from gateway.audit.store_comparison import Discrepancy
    from gateway.audit.verify import Report


def verify(
    ctx: typer.Context,
    head: Annotated[
        Path | None, typer.Option("--head", metavar="FILE", help="A signed head kept elsewhere; the last in it counts.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="Verifier key, or its file; default: HEAD.pub, else this gateway's."),
    ] = None,
    journal: JournalOption = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Prove that the journal is whole; without --journal also that the database agrees with it."""
    from gateway.audit.verify import verify as verify_chain

    invocation = invocation_of(ctx)
    directory = journal or invocation.settings.journal_dir
    report = verify_chain(directory, _open(invocation, head, key) if head else None)
    found = () if journal or not report.ok else _contradictions(invocation)
    out = Output(output, quiet=quiet)
    out.facts(_facts(report, found), report.as_dict() | {"store": [_document(one) for one in found]})
    if head is None:
        out.note("without --head the end of the journal is not proven")
    _refuse(report, found)


def head(
    ctx: typer.Context,
    verifier: Annotated[
        bool, typer.Option("--verifier", help="Print the verifier key instead, to be kept with the heads.")
    ] = False,
) -> None:
    """Sign the journal's present end and print it."""
    from gateway.audit.schedule import current_head

    invocation = invocation_of(ctx)
    signer = invocation.app.head_key.load()
    if verifier:
        Output().text(f"{signer.verifier}\n")
    else:
        Output().text(signer.sign(current_head(invocation.settings.journal_dir, signer.verifier.name)))


def prune(
    ctx: typer.Context,
    before: Annotated[
        str, typer.Option("--before", metavar="TIME", help="Remove what is older, in UTC.", show_default=False)
    ],
    yes: YesOption = False,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Remove the oldest sealed segments; the chain goes on and says that they were removed."""
    from gateway.audit import retention
    from gateway.cli.moments import require_moment
    from gateway.operations.administrator import administrator

    moment, invocation, out = require_moment("--before", before), invocation_of(ctx), Output(output, quiet=quiet)
    directory = invocation.settings.journal_dir
    try:
        old = retention.prunable(directory, moment)
    except (OSError, ValueError) as exc:
        raise JournalError("journal.unreadable", f"the journal in {directory} cannot be read: {exc}") from exc
    if old and not out.confirm(f"remove {len(old)} segments of the journal for good?", yes=yes):
        out.note("nothing was removed")
        return
    removed = retention.prune(invocation.app.journal, directory, moment, administrator()) if old else []
    names = [path.name for path in removed]
    out.done("\n".join(f"removed {name}" for name in names) or "nothing is as old as that", {"removed": names})


def _open(invocation: Invocation, file: Path, key: str | None) -> "Head":
    from gateway.audit.head_key import HeadKey, read_verifier, verifier_beside
    from gateway.audit.heads import last_note, open_head

    own = HeadKey(invocation.settings.keys_dir).public
    verifier = read_verifier(key or verifier_beside(file, own))
    try:
        return open_head(last_note(file.read_text()), verifier)
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or "not text"
        raise JournalError("head.malformed", f"{file} cannot be read: {reason}") from exc


def _contradictions(invocation: Invocation) -> "tuple[Discrepancy, ...]":
    """Compare with the database, where there is one beside this journal."""
    path = invocation.app.database.path
    if path is not None and not path.exists():
        return ()
    from gateway.background.journal_maintenance import contradictions

    return contradictions(invocation.app.users, invocation.settings.journal_dir)


def _facts(report: "Report", found: "tuple[Discrepancy, ...]") -> dict[str, str]:
    problem = report.problem
    bad = problem is not None or any(one.certain for one in found)
    facts = {
        "journal": "NOT AS IT WAS WRITTEN" if problem else "ok",
        "records": f"{report.records}, from {report.first_seq} to {report.last_seq}",
        "last hash": report.last_hash,
        "head": "agrees" if report.head_checked and not problem else "not compared",
    }
    if problem:
        facts |= {"first bad": f"record {problem.seq} in {problem.file}, line {problem.line}: {problem.kind}"}
    facts |= {f"note {number}": note for number, note in enumerate(report.notes, 1)}
    for number, one in enumerate(found, 1):
        facts[f"database {number}"] = f"{one.kind}: {one.user} {one.subject} {one.message}"
    if not bad and not report.head_checked:
        facts["proven"] = "nothing was changed, removed or reordered up to the last record here"
    return facts


def _refuse(report: "Report", found: "tuple[Discrepancy, ...]") -> None:
    """End with a failure where anything is wrong for sure. Raises: JournalError."""
    if report.problem is not None:
        problem = report.problem
        message = f"{problem.message} ({problem.kind}, {problem.file}, line {problem.line})"
        raise JournalError("journal.not-whole", message, "keep this copy; compare it with a backup from before")
    certain = [one for one in found if one.certain]
    if certain:
        one = certain[0]
        more = f" (and {len(certain) - 1} more)" if len(certain) > 1 else ""
        message = f"the database contradicts the journal: {one.user}: {one.subject} {one.message}{more}"
        raise JournalError("store.contradicted", message, "somebody wrote to the database without devgw")


def _document(found: "Discrepancy") -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__slots__}
