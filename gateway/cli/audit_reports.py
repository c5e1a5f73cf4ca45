"""`devgw audit review` and `exposure`: who may reach what and why, and who could and did reach a dataset."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import JournalOption, OutputOption, QuietOption
from gateway.cli.output import Form, Output
from gateway.errors import JournalError, UsageError

if TYPE_CHECKING:
    from gateway.app.composition import App
    from gateway.audit.exposure import Exposure
    from gateway.audit.review import Person, Review

_FINDINGS = ("", "WHAT", "WHO", "WHY")
_PEOPLE = ("USER", "ROLES", "DATASETS", "GPUS", "FORWARDS", "KEYS", "LAST LOGIN")
_COULD = ("USER", "ROLE", "GRANT", "UNTIL", "FIRST", "POLICY")
_DID = ("USER", "ENVIRONMENT", "MOUNTED SINCE", "UNTIL", "OPENINGS", "FIRST", "LAST", "ADDRESSES", "CUT OFF")
_RAN = ("ENVIRONMENT", "SINCE", "UNTIL", "STARTED BY")


class ReviewForm(StrEnum):
    """How a review is written."""

    TABLE = "table"
    JSON = "json"
    HTML = "html"


def review(
    ctx: typer.Context,
    output: Annotated[
        ReviewForm, typer.Option("--output", "-o", help="How to write it; html is one file, to be printed.")
    ] = ReviewForm.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Review everybody's access: by which role, grant and key, last used when, and what to look at."""
    from gateway.audit.review import review as review_people

    gateway = invocation_of(ctx).app
    datasets = sorted(gateway.settings.datasets)
    made = review_people(gateway.policy.policy, _people(gateway), datasets=datasets, at=datetime.now(UTC))
    out = Output(Form.JSON if output is ReviewForm.JSON else Form.TABLE, quiet=quiet)
    if output is ReviewForm.HTML:
        from gateway.audit.review_html import review_page

        out.text(review_page(made, _journal_sentence(gateway)))
        return
    if output is ReviewForm.JSON:
        out.table((), [], made.as_dict())
        return
    _show_review(out, made)


def exposure(
    ctx: typer.Context,
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The dataset's name.", show_default=False)],
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="From then on, in UTC.", show_default=False)],
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before then; default: now.")] = None,
    journal: JournalOption = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Say who could read a dataset in a span of time, who had it mounted while they worked, and what ran with it."""
    from gateway.audit.exposure import exposure as find_exposure
    from gateway.cli.moments import moment_from, require_moment

    begin, end = require_moment("--since", since), moment_from("--until", until) or datetime.now(UTC)
    if end <= begin:
        raise UsageError("time.bad", "--until is not after --since", "a day is --since 2026-05-03 --until 2026-05-04")
    settings = invocation_of(ctx).settings
    directory = journal or settings.all_journals
    archive = directory / settings.policies_dir.name
    try:
        found = find_exposure(directory, archive, dataset, begin, end)
    except (OSError, ValueError) as exc:
        raise JournalError("journal.unreadable", f"the journal in {directory} cannot be read: {exc}") from exc
    out = Output(output, quiet=quiet)
    if output is Form.JSON:
        out.table((), [], found.as_dict())
    else:
        _show_exposure(out, found)
    out.note("who had it mounted is known; which files they opened is not recorded")


def _people(gateway: "App") -> "list[Person]":
    from gateway.operations.reviewing import people_of

    path = gateway.database.path
    if path is not None and not path.exists():
        return []
    return people_of(gateway.users, gateway.settings.all_journals)


def _journal_sentence(gateway: "App") -> str:
    from gateway.audit.verify import verify

    try:
        report = verify(gateway.settings.journal_dir)
    except JournalError as exc:
        return f"The journal could not be checked: {exc.message}."
    if report.problem is not None:
        return f"The journal is not as it was written: {report.problem.message}."
    return f"The journal's {report.records} records follow from one another; the last is {report.last_seq}."


def _show_review(out: Output, made: "Review") -> None:
    from gateway.cli.moments import day

    if made.findings:
        rows = [(one.severity, one.code, one.subject, one.message) for one in made.findings]
        out.table(_FINDINGS, rows, {})
        out.text("\n" if not out.quiet else "")
    people = [
        (
            one.user + (" (disabled)" if one.disabled else ""),
            ", ".join(role for role, _grant, _until in one.grants),
            *(dict(one.may).get(name, "") for name in ("datasets", "GPUs", "forwards")),
            str(len(one.keys)),
            day(one.last_login_at, "never"),
        )
        for one in made.people
    ]
    out.table(_PEOPLE, people, {})
    out.note(f"'devgw who-can --user NAME' shows one person; '-o html' the whole review; policy: {made.policy}")


def _show_exposure(out: Output, found: "Exposure") -> None:
    from gateway.cli.moments import day, minute

    if found.known_since is not None:
        out.text(f"The journal was pruned and begins at {minute(found.known_since)} UTC. Users, policies and\n")
        out.text("environments of which nothing was written down since are missing from these lists.\n\n")
    span = f"{minute(found.since)} to {minute(found.until)} UTC"
    out.text(f"Who could mount {found.dataset}, {span}:\n")
    could = [
        (one.user, role, grant, day(end, "no end"), minute(one.first_at), one.policy_digest[:12])
        for one in found.could
        for role, grant, end in one.reach.grants
    ]
    out.table(_COULD, could, {}) if could else out.text("nobody\n")
    out.text(f"\nWho worked with {found.dataset} mounted:\n")
    did = [
        (
            one.user,
            one.environment,
            minute(one.mounted_since),
            minute(one.mounted_until, "still"),
            str(one.openings),
            minute(one.first_at),
            minute(one.last_at),
            ", ".join(one.addresses),
            one.revoked or "-",
        )
        for one in found.did
    ]
    out.table(_DID, did, {}) if did else out.text("nobody\n")
    ran = [(one.environment, minute(one.since), minute(one.until, "still"), one.started_by) for one in found.ran]
    if ran:
        out.text("\nWhat ran with it mounted, whether anybody was connected or not:\n")
        out.table(_RAN, ran, {})
    unused = [name for name in found.mounted if name not in {one.environment for one in found.did}]
    if unused:
        out.note(f"mounted in, but not used by anybody: {', '.join(unused)}")
