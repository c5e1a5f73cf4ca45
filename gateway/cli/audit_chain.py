"""`devgw audit verify`, `head`, `prune` and `index`: is the journal whole, where it ends and begins."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.invocation import Invocation, invocation_of
from gateway.cli.options import JournalOption, OutputOption, QuietOption, YesOption
from gateway.cli.output import Form, Output
from gateway.errors import JournalError, NotProvenError, UsageError

if TYPE_CHECKING:
    from gateway.audit.heads import Head, Verifier
    from gateway.audit.store_comparison import Discrepancy
    from gateway.audit.verify import Problem, Report


def verify(
    ctx: typer.Context,
    head: Annotated[
        Path | None, typer.Option("--head", metavar="FILE", help="Signed heads kept elsewhere; all are compared.")
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="KEY", help="Verifier key, or its file; default: HEAD.pub, else this gateway's."),
    ] = None,
    timestamps: Annotated[
        Path | None,
        typer.Option("--timestamps", metavar="FILE", help="What an authority (RFC 3161) said of the heads; see --tsa."),
    ] = None,
    tsa: Annotated[
        Path | None, typer.Option("--tsa", metavar="PEM", help="The certificate of that authority's root.")
    ] = None,
    journal: JournalOption = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Prove that the journal is whole; without --journal also that the database agrees with it."""
    from gateway.audit.head_signing import kept_heads
    from gateway.audit.verify import verify as verify_chain

    invocation, stamped = invocation_of(ctx), {}
    if timestamps or tsa:
        if not (head and timestamps and tsa):
            raise UsageError("timestamps.incomplete", "--timestamps, --tsa and --head go together", "each names a file")
        stamped = _stamped(head, timestamps, tsa)
    if journal is None and invocation.settings.instance:
        _verify_site(invocation, head, key, Output(output, quiet=quiet), stamped)
        return
    directory = journal or invocation.settings.journal_dir
    verifiers = _verifiers(invocation, head, key)
    heads = _open(head, verifiers) if head else []
    kept = kept_heads(directory, *verifiers) if verifiers else None
    report = verify_chain(directory, *heads, kept=kept)
    found = () if journal or not report.ok else _contradictions(invocation)
    out = Output(output, quiet=quiet)
    document = report.as_dict() | stamped | {"store": [_document(one) for one in found]}
    out.facts(_facts(report, found) | _told_stamps(stamped), document)
    if head is None:
        out.note("without --head nothing shows that these are the records that were written")
    _refuse(report, found)


def head(
    ctx: typer.Context,
    verifier: Annotated[
        bool, typer.Option("--verifier", help="Print the verifier key instead, to be kept with the heads.")
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Sign although the journal does not continue the head signed last.")
    ] = False,
    yes: YesOption = False,
) -> None:
    """Sign the journal's present end and print it."""
    app, out = invocation_of(ctx).app, Output()
    key = app.head_key.load()
    if verifier:
        out.text(f"{key.verifier}\n")
        return
    if anew:
        if not out.confirm(
            "sign a journal that may have been exchanged? heads kept elsewhere go on to differ", yes=yes
        ):
            out.note("nothing was signed")
            return
        app.recorded.note("journal.signed-anew")
    _head, note = app.head_signer.sign(anew=anew)
    out.text(note)


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
    app, removal = invocation.app, retention.Removal()
    if old:
        removal = retention.prune(app.journal, app.head_signer, moment, administrator())
    names = [path.name for path in removal.paths]
    out.done(
        "\n".join(f"removed {name}" for name in names) or "nothing is as old as that",
        {"removed": names, "head": removal.note},
    )


def index(
    ctx: typer.Context,
    anew: Annotated[
        bool, typer.Option("--anew", help="Make all of them again from the records, and say which one differed.")
    ] = False,
    journal: JournalOption = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Make the indexes by which the journal answers quickly; the gateway does so by itself."""
    from gateway.audit.journal_index import JournalIndex

    directory, out = journal or invocation_of(ctx).settings.journal_dir, Output(output, quiet=quiet)
    try:
        made = list(JournalIndex(directory).refresh(anew=anew))
    except OSError as exc:
        raise JournalError("journal.unreadable", f"the journal in {directory} cannot be read: {exc.strerror}") from exc
    rows = [(one.segment, one.outcome, str(one.size_bytes)) for one in made]
    document = [{"segment": one.segment, "outcome": one.outcome, "bytes": one.size_bytes} for one in made]
    out.table(("SEGMENT", "INDEX", "BYTES"), rows, {"segments": document})
    if any(one.outcome == "differed" for one in made):
        out.note("an index that differed may have hidden records: ask again what was asked")


def _verify_site(
    invocation: Invocation, head: Path | None, key: str | None, out: Output, stamped: dict[str, Any]
) -> None:
    """Verify the journal of each gateway of the site, and name those that are not there."""
    from gateway.audit.site import missing_journals, own_verifiers, verify_each

    settings, app = invocation.settings, invocation.app
    verifiers = _verifiers(invocation, None, key) if key else own_verifiers(settings.journals)
    heads = _open(head, verifiers) if head else []
    reports = verify_each(settings.journals, verifiers, heads)
    is_whole = all(report.ok for report in reports.values())
    found = _contradictions(invocation) if is_whole else ()
    named = {one.instance for one in app.serving.all()} | {one.origin.rpartition("/")[2] for one in heads}
    missing = missing_journals(settings.journals, named)
    facts = {f"{name}: {fact}": said for name, one in reports.items() for fact, said in _facts(one, ()).items()}
    facts |= {f"database {number}": f"{one.kind}: {one.user} {one.message}" for number, one in enumerate(found, 1)}
    facts |= {f"{name}: journal": "NOT THERE" for name in missing}
    chains = {name: report.as_dict() for name, report in reports.items()}
    document = {"chains": chains, "missing": missing, "store": [_document(one) for one in found]} | stamped
    out.facts(facts | _told_stamps(stamped), document)
    if head is None:
        out.note("without --head nothing shows that these are the records that were written")
    for report in reports.values():
        _refuse(report, found)
    if missing:
        message = f"not proven: the journal of the gateway {missing[0]} is not in {settings.gateways_dir}"
        raise NotProvenError("journal.not-proven", message, "site.gateways_dir is the same in all gateways")


def _verifiers(invocation: Invocation, head: Path | None, key: str | None) -> "tuple[Verifier, ...]":
    """Return the keys that heads are checked with; none where no head is given and this host has no key."""
    from gateway.audit.head_key import read_verifiers, verifier_beside

    own = invocation.app.head_key.public
    if key is None and head is None and not own.exists():
        return ()
    return read_verifiers(key or (verifier_beside(head, own) if head else own))


def _stamped(head: Path, timestamps: Path, tsa: Path) -> dict[str, Any]:
    """Check the timestamps of the heads in a file. Raises: JournalError, NotProvenError."""
    from gateway.audit.timestamps import prove_stamped, read_roots, read_timestamps

    found = prove_stamped(_notes(head), read_timestamps(timestamps), read_roots(tsa))
    return {"stamped_heads": found.stamped, "heads": found.heads, "stamped_at": found.at.isoformat()}


def _told_stamps(stamped: dict[str, Any]) -> dict[str, str]:
    if not stamped:
        return {}
    of = f"{stamped['stamped_heads']} of {stamped['heads']} heads"
    return {"timestamps": f"{of}; the newest existed at {stamped['stamped_at']}"}


def _notes(file: Path) -> list[str]:
    from gateway.audit.heads import notes_in

    try:
        return notes_in(file.read_text())
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or "not text"
        raise JournalError("head.malformed", f"{file} cannot be read: {reason}") from exc


def _open(file: Path, verifiers: "tuple[Verifier, ...]") -> "list[Head]":
    from gateway.audit.heads import open_head

    notes = _notes(file)
    heads: list[Head] = []
    for number, note in enumerate(notes, 1):
        try:
            heads.append(open_head(note, *verifiers))
        except JournalError as exc:
            if len(notes) > 1:
                exc.message = f"head {number} of {len(notes)} in {file}: {exc.message}"
            raise
    return heads


def _contradictions(invocation: Invocation) -> "tuple[Discrepancy, ...]":
    """Compare with the database, where there is one beside this journal."""
    path = invocation.app.database.path
    if path is not None and not path.exists():
        return ()
    from gateway.background.journal_maintenance import contradictions

    return contradictions(invocation.app.users, invocation.settings.all_journals)


def _facts(report: "Report", found: "tuple[Discrepancy, ...]") -> dict[str, str]:
    problem = report.problem
    facts = {
        "journal": "NOT AS IT WAS WRITTEN" if problem else "NOT PROVEN" if report.unproven else "ok",
        "records": f"{report.records}, from {report.first_seq} to {report.last_seq}",
        "last hash": report.last_hash,
        "head": "agrees" if report.head_checked and not problem else "not compared",
    }
    if problem:
        facts |= {"first bad": f"record {problem.seq}{_place(problem)}: {problem.kind}"}
    facts |= {f"note {number}": note for number, note in enumerate(report.notes, 1)}
    for number, one in enumerate(found, 1):
        facts[f"database {number}"] = f"{one.kind}: {one.user} {one.subject} {one.message}"
    return facts if problem else facts | _proven(report)


def _place(problem: "Problem") -> str:
    return f" in {problem.file}, line {problem.line}" if problem.file else ""


def _proven(report: "Report") -> dict[str, str]:
    """Say what a signed head vouches for, and what it does not."""
    facts = {"proven": "nothing"}
    if report.proven_seq >= report.first_seq:
        facts["proven"] = f"records {report.first_seq} to {report.proven_seq} are those that were written"
    after = max(report.proven_seq + 1, report.first_seq)
    if report.last_seq >= after:
        facts["not proven"] = f"records {after} to {report.last_seq} follow from one another; no head covers them"
    return facts


def _refuse(report: "Report", found: "tuple[Discrepancy, ...]") -> None:
    """End with a failure where anything is wrong for sure, or not proven. Raises: JournalError."""
    if report.problem is not None:
        problem = report.problem
        message = (
            f"{problem.message} ({problem.kind}{',' if problem.file else ''}{_place(problem).removeprefix(' in')})"
        )
        raise JournalError("journal.not-whole", message, "keep this copy; compare it with a backup from before")
    certain = [one for one in found if one.certain]
    if certain:
        one = certain[0]
        more = f" (and {len(certain) - 1} more)" if len(certain) > 1 else ""
        message = f"the database contradicts the journal: {one.user}: {one.subject} {one.message}{more}"
        raise JournalError("store.contradicted", message, "somebody wrote to the database without devgw")
    if report.unproven:
        hint = "give a newer head with --head, and its key with --key"
        raise NotProvenError("journal.not-proven", f"not proven: {report.unproven}", hint)


def _document(found: "Discrepancy") -> dict[str, Any]:
    return {name: getattr(found, name) for name in found.__slots__}
