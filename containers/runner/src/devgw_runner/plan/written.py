"""Write plan.json: every choice with its reason, and after warm-up what became of them."""

import json
from typing import Any

from devgw_runner.errors import storage_error
from devgw_runner.paths import RunPaths
from devgw_runner.plan.choice import Plan


def write_plan(plan: Plan, paths: RunPaths, warm_up: dict[str, Any] | None = None) -> None:
    """Replace plan.json.

    Raises:
        StorageError: the logs volume cannot be written.
    """
    content = plan.to_json() | {"run": paths.run} | ({} if warm_up is None else {"warm_up": warm_up})
    temporary = paths.logs / ".plan.json.tmp"
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        temporary.replace(paths.logs / "plan.json")
    except OSError as exc:
        raise storage_error(exc, "writing plan.json") from exc
