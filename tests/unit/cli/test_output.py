"""What reaches a terminal or a program."""

import json

import pytest
from rich.cells import cell_len

from gateway.cli.output import Form, Output, printable
from gateway.errors import UsageError


def test_a_name_from_outside_cannot_drive_the_terminal() -> None:
    """Escape sequences, bells, carriage returns and bidirectional overrides are shown, not obeyed (invariant 9)."""
    assert printable("\x1b]0;owned\x07\r\u202ebob") == "\\x1b]0;owned\\x07\\r\\u202ebob"
    assert printable("Ännchen 李") == "Ännchen 李"


def test_table_aligns_and_never_cuts(capsys: pytest.CaptureFixture[str]) -> None:
    """No colours, no cut values and no trailing spaces where no person looks."""
    Output().table(("A", "B"), [("x" * 200, ""), ("y", "z")], {})
    assert capsys.readouterr().out == f"{'A':200}  B\n{'x' * 200}  -\n{'y':200}  z\n"


def test_quiet_table_is_its_first_column(capsys: pytest.CaptureFixture[str]) -> None:
    """What a loop in a shell wants."""
    Output(quiet=True).table(("A", "B"), [("x", "1"), ("y", "2")], {})
    assert capsys.readouterr().out == "x\ny\n"


def test_json_is_one_object_with_a_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Also when quiet, and without any note on stdout."""
    out = Output(Form.JSON, quiet=True)
    out.table(("A",), [("x",)], {"things": ["x"]})
    out.note("unheard")
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"version": 1, "things": ["x"]}
    assert captured.err == ""


def test_progress_is_plain_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """On stderr, one line a step; a build's other lines are left out."""
    with Output().progress() as progress:
        progress("making directories")
    with Output().steps() as steps:
        steps(1, 2, "FROM base")
        steps(1, 2, "pulling")
        steps(2, 2, "RUN true")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "devgw: making directories\ndevgw: step 1 of 2: FROM base\ndevgw: step 2 of 2: RUN true\n"


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither on stdout nor on stderr."""
    with Output(quiet=True).progress() as progress:
        progress("making directories")
    with Output(quiet=True).steps() as steps:
        steps(1, 2, "FROM base")
    assert capsys.readouterr() == ("", "")


def test_question_without_a_terminal_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """A script says --yes or is told to."""
    with pytest.raises(UsageError) as refusal:
        Output().confirm("delete alice?", yes=False)
    assert refusal.value.code == "confirmation.needed"
    assert Output().confirm("delete alice?", yes=True)
    assert capsys.readouterr().err == ""


def test_names_in_chinese_align(capsys: pytest.CaptureFixture[str]) -> None:
    """A character that takes two cells of a terminal is counted as two."""
    Output().table(("NAME", "STATE"), [("数据集", "running"), ("imagenet", "stopped")], {})
    lines = capsys.readouterr().out.splitlines()
    starts = [
        cell_len(line[: line.index(word)]) for line, word in zip(lines, ("STATE", "running", "stopped"), strict=True)
    ]
    assert len(set(starts)) == 1
