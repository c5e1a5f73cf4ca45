"""How the gateway's log is written: lines for people, or one JSON object a line with the names of the ECS.

Elastic Common Schema: what shippers and search engines know without being taught (elastic.co/docs/reference/ecs).
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from gateway.version import VERSION

LogFormat = Literal["text", "json"]
_ECS_VERSION = "8.11.0"
_TEXT = "%(asctime)s %(levelname)s %(message)s"


class EcsFormatter(logging.Formatter):
    """One line for each record, however many lines its message or traceback has; ASCII only."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "@timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "log.level": record.levelname.lower(),
            "message": record.getMessage(),
            "ecs.version": _ECS_VERSION,
            "service.name": "devgw",
            "service.version": VERSION,
            "log.logger": record.name,
            "process.pid": record.process,
            "process.thread.name": record.threadName,
        }
        if record.exc_info and record.exc_info[0]:
            kind, error, _traceback = record.exc_info
            fields |= {
                "error.type": kind.__name__,
                "error.message": str(error),
                "error.stack_trace": self.formatException(record.exc_info),
            }
        return json.dumps(fields)


def write_log(form: LogFormat, *, names_process: bool = False) -> None:
    """Write this process' log to stderr from now on. `names_process`: several write into one log."""
    handler = logging.StreamHandler(sys.stderr)
    text = _TEXT.replace("%(message)", "[%(process)d] %(message)") if names_process else _TEXT
    handler.setFormatter(EcsFormatter() if form == "json" else logging.Formatter(text))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
