"""The log as JSON: one line a record, with the names that shippers know."""

import json
import logging
import sys

import pytest

from gateway.process.log_format import EcsFormatter

ESCAPE = "\x1b[2Jalice\u202e\nlog.level"


def written(record: logging.LogRecord) -> dict[str, object]:
    line = EcsFormatter().format(record)
    assert "\n" not in line
    assert line.isascii()
    found: dict[str, object] = json.loads(line)
    return found


def test_a_record_has_the_schemas_names() -> None:
    record = logging.LogRecord("gateway.app.serve", logging.WARNING, __file__, 1, "port %d", (2222,), None)
    record.created = 1_795_000_000.25
    found = written(record)
    assert found["@timestamp"] == "2026-11-18T11:06:40.250+00:00"
    assert {name: found[name] for name in ("log.level", "message", "log.logger", "service.name", "ecs.version")} == {
        "log.level": "warning", "message": "port 2222", "log.logger": "gateway.app.serve", "service.name": "devgw",
        "ecs.version": "8.11.0",
    }  # fmt: skip
    assert "error.type" not in found


def test_what_others_wrote_cannot_begin_a_line_or_reach_a_terminal() -> None:
    found = written(logging.LogRecord("x", logging.INFO, __file__, 1, "no user %s", (ESCAPE,), None))
    assert found["message"] == f"no user {ESCAPE}"


def test_a_traceback_stays_in_its_record() -> None:
    try:
        {}[ESCAPE]
    except KeyError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", None, sys.exc_info())
    found = written(record)
    assert (found["error.type"], found["error.message"]) == ("KeyError", repr(ESCAPE))
    assert str(found["error.stack_trace"]).startswith("Traceback (most recent call last):\n")


@pytest.mark.parametrize("exc_info", [None, (None, None, None)])
def test_no_error_has_no_error_fields(exc_info: tuple[None, None, None] | None) -> None:
    found = written(logging.LogRecord("x", logging.INFO, __file__, 1, "fine", None, exc_info))
    assert not [name for name in found if name.startswith("error.")]
