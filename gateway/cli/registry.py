"""The table of commands: adding one is a file beside this one and a line here. Modules are imported when they run."""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NoReturn, cast

import typer
from typer.core import TyperGroup

from gateway.cli.leading_options import move_behind_command

ENVIRONMENTS = "Environments"
PEOPLE = "Users and keys"
ACCESS = "Access: what is allowed, what was done"
SITE = "The site"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a command lives: module `gateway.cli.<module>`, whose `app` holds it, and its section in the help."""

    module: str
    section: str
    alias_of: str = ""


REGISTRY: dict[str, Entry] = {
    "create": Entry("create", ENVIRONMENTS),
    "list": Entry("list", ENVIRONMENTS),
    "ls": Entry("list", ENVIRONMENTS, alias_of="list"),
    "show": Entry("show", ENVIRONMENTS),
    "start": Entry("start", ENVIRONMENTS),
    "stop": Entry("stop", ENVIRONMENTS),
    "restart": Entry("restart", ENVIRONMENTS),
    "delete": Entry("delete", ENVIRONMENTS),
    "disk": Entry("disk", ENVIRONMENTS),
    "extend": Entry("extend", ENVIRONMENTS),
    "passwd": Entry("passwd", ENVIRONMENTS),
    "run": Entry("run", ENVIRONMENTS),
    "logs": Entry("logs", ENVIRONMENTS),
    "export": Entry("export", ENVIRONMENTS),
    "key": Entry("key", PEOPLE),
    "rename": Entry("rename", PEOPLE),
    "move": Entry("move", PEOPLE),
    "move-in": Entry("move_in", PEOPLE),
    "user": Entry("user", PEOPLE),
    "config-ssh": Entry("config_ssh", PEOPLE),
    "policy": Entry("policy", ACCESS),
    "who-can": Entry("who_can", ACCESS),
    "audit": Entry("audit", ACCESS),
    "sessions": Entry("sessions", ACCESS),
    "bans": Entry("bans", ACCESS),
    "init": Entry("init", SITE),
    "serve": Entry("serve", SITE),
    "host-key": Entry("host_key", SITE),
    "nodes": Entry("nodes", SITE),
    "node": Entry("node", SITE),
    "gpus": Entry("gpus", SITE),
    "top": Entry("top", SITE),
    "usage": Entry("usage", SITE),
    "metrics": Entry("metrics", SITE),
    "doctor": Entry("doctor", SITE),
    "queue": Entry("queue", SITE),
    "reap": Entry("reap", SITE),
    "image": Entry("image", SITE),
    "backup": Entry("backup", SITE),
    "restore": Entry("restore", SITE),
    "upgrade": Entry("upgrade", SITE),
    "downgrade": Entry("downgrade", SITE),
    "completion": Entry("completion", SITE),
    "version": Entry("version", SITE),
}


class Commands(MutableMapping[str, Any]):
    """The registry as the mapping a command group wants: a command's module is imported when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        command = typer.main.get_command(import_module(f"gateway.cli.{REGISTRY[name].module}").app)
        command.name = name
        command.hidden = bool(REGISTRY[name].alias_of)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(REGISTRY)

    def __len__(self) -> int:
        return len(REGISTRY)

    def __setitem__(self, name: str, command: Any) -> NoReturn:
        raise TypeError("commands are added in REGISTRY")

    def __delitem__(self, name: str) -> NoReturn:
        raise TypeError("commands are removed in REGISTRY")


class LazyGroup(TyperGroup):
    """The `devgw` group: commands from the registry, listed by section."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = cast("dict[str, Any]", Commands())

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the options that mean the same everywhere before the command too."""
        return super().parse_args(ctx, args if ctx.resilient_parsing else move_behind_command(self, ctx, args))

    def format_commands(self, _ctx: Any, formatter: Any) -> None:
        """Write one section of the help for each section of the registry."""
        for section in dict.fromkeys(entry.section for entry in REGISTRY.values()):
            names = [name for name, entry in REGISTRY.items() if entry.section == section and not entry.alias_of]
            with formatter.section(section):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(100)) for name in names])
