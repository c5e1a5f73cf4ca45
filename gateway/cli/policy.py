"""`devgw policy`: try a policy before it counts, and ask the one in force why. Needs no engine and no gateway."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.invocation import invocation_of
from gateway.cli.options import OutputOption, QuietOption, UserArgument, command_app
from gateway.cli.output import Form, Output
from gateway.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from policies.model import Policy

app = command_app(help="Check, explain, test and compare policies.")

_TEST_HEADINGS = ("RESULT", "USER", "QUESTION", "EXPECTED", "PLACE", "REASON")
_FileOption = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="Another policy than the one in force.")
]


@app.command()
def check(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy file.", show_default=False)],
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Say whether a policy can be loaded, its own tests included."""
    policy = _load(file)
    port = invocation_of(ctx).settings.server.notebook_port
    counts = {"roles": len(policy.roles), "grants": len(policy.grants), "tests": len(policy.tests)}
    out = Output(output, quiet=quiet)
    shown = ", ".join(f"{number} {name}" for name, number in counts.items())
    document = {"file": str(file), "ok": True, **counts, "fits_settings": policy.notebook_port == port}
    out.done(f"{file}: good ({shown})", document)
    if policy.notebook_port != port:
        out.note(f"server.notebook_port is {port}: a gateway of these settings refuses this policy")


@app.command()
def explain(
    ctx: typer.Context,
    user: UserArgument,
    question: Annotated[
        list[str], typer.Argument(metavar="QUESTION...", help="Such as: forward localhost:6006", show_default=False)
    ],
    address: Annotated[
        str, typer.Option("--address", metavar="ADDRESS", help="As if from there; default: from where it is allowed.")
    ] = "",
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="As if then; default: now.")] = None,
    policy: _FileOption = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Say what the policy answers, by which line, and which roles were asked."""
    from dataclasses import asdict, replace

    from gateway.cli.moments import moment_from
    from policies.explain import explain as explain_question
    from policies.reach import best_subject

    asked, moment = " ".join(question), moment_from("--at", at) or datetime.now(UTC)
    chosen = _chosen(ctx, policy)
    subject = best_subject(chosen, user, moment)
    try:
        answer = explain_question(chosen, asked, replace(subject, address=address or subject.address), moment)
    except ValueError as exc:
        raise UsageError(
            "question.bad", " ".join(str(exc).split()), "for example 'devgw policy explain alice shell'"
        ) from exc
    out = Output(output, quiet=quiet)
    roles = {f"role {role}": f"{state}, by {grant}" for role, grant, state in answer.roles}
    decision = answer.decision
    facts = {
        "question": f"{user}: {asked}",
        "answer": "allowed" if decision.allowed else "denied",
        "reason": decision.reason,
        "rule": decision.rule,
    }
    document = {"user": user, **answer.as_dict()}
    if asked.partition(" ")[0] == "create":
        app = invocation_of(ctx).app
        facts |= app.deciders.explained()
        document["engine_decides"] = asdict(app.deciders)
    out.facts(facts | roles, document)
    out.note("asked as if with a key that the roles accept; 'devgw key list' shows the user's own")


@app.command("test")
def run_tests(
    ctx: typer.Context,
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Default: the policy in force.")] = None,
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Run a policy's own tests and show every one."""
    from gateway.policy import policy_file
    from policies.load import PolicyError, parse_untested, read_policy_text
    from policies.policy_tests.run import run_policy_tests

    path = file or policy_file(invocation_of(ctx).settings)
    try:
        results = run_policy_tests(parse_untested(read_policy_text(path), str(path)))
    except PolicyError as exc:
        raise _invalid(exc, path) from exc
    failed = [result for result in results if not result.passed]
    rows = [
        (
            "pass" if result.passed else "FAIL",
            result.user,
            result.question,
            "allowed" if result.must_allow else "denied",
            result.place,
            result.decision.reason,
        )
        for result in results
    ]
    out = Output(output, quiet=quiet)
    out.table(_TEST_HEADINGS, rows, {"ok": not failed, "tests": [result.as_dict() for result in results]})
    if not results:
        out.note(f"{path} has no tests")
    if failed:
        message = f"{len(failed)} of {len(results)} tests fail"
        raise ConfigError("policy.tests-fail", message, "a gateway would not load this policy")


@app.command("diff")
def show_difference(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The policy that counts now.", show_default=False)],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The one to replace it.", show_default=False)],
    output: OutputOption = Form.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Say who gains what and who loses what."""
    from policies.diff import diff

    changes = diff(_load(old), _load(new))
    out = Output(output, quiet=quiet)
    document = {"changes": [change.as_dict() for change in changes]}
    if changes or output is Form.JSON:
        rows = [(", ".join(change.users), change.verb, change.effect) for change in changes]
        out.table(("WHO", "", "WHAT"), rows, document)
    else:
        out.done("nobody gains or loses anything", document)
    if any("*" in change.users for change in changes):
        out.note("* is every user whom no grant names")


def _chosen(ctx: typer.Context, file: Path | None) -> "Policy":
    return _load(file) if file else invocation_of(ctx).app.policy.policy


def _load(file: Path) -> "Policy":
    from policies.load import PolicyError, load_policy

    try:
        return load_policy(file)
    except PolicyError as exc:
        raise _invalid(exc, file) from exc


def _invalid(exc: Exception, file: Path) -> ConfigError:
    return ConfigError("policy.invalid", str(exc), f"mend {file}; docs/reference/policy.md lists every field")
