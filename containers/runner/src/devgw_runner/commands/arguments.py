"""The argument parser that all subcommands share: errors are raised, so that they read like all others."""

import argparse
from typing import NoReturn

from devgw_runner.errors import UsageError


class CommandParser(argparse.ArgumentParser):
    """Raises UsageError where argparse would print and exit."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"devgw-run {command}", description=description, allow_abbrev=False)
        self._command = command

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, f"'devgw-run {self._command} --help' shows the usage")
