"""`devgw-run doctor`: driver, torch, device, limits and volumes, each problem with one fix."""

import json
from collections.abc import Sequence

from devgw_runner.commands.arguments import CommandParser
from devgw_runner.errors import PreflightError
from devgw_runner.preflight.check import report_json, report_text
from devgw_runner.preflight.doctor import first_failure, run_checks


def run(arguments: Sequence[str]) -> int:
    parser = CommandParser("doctor", "check driver, torch, device, limits and volumes")
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    options = parser.parse_args(arguments)
    checks = run_checks()
    print(json.dumps(report_json(checks), indent=1) if options.output == "json" else report_text(checks))
    return 0 if first_failure(checks) is None else PreflightError.exit_code
