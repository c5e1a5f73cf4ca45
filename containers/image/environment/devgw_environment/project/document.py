"""What a `devcontainer.json` says, checked: which of it is carried out here, and which is left out."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from devgw_environment.project.errors import ProjectError
from devgw_environment.project.text import shown

ONCE = ("onCreateCommand", "updateContentCommand", "postCreateCommand")
"""Commands that run once for a content of the file, in this order."""
EACH_START = ("postStartCommand",)
VARIABLES = ("containerEnv", "remoteEnv")
POLICY_DECIDES = frozenset(
    {
        "appPort", "capAdd", "containerUser", "forwardPorts", "init", "mounts", "privileged", "remoteUser", "runArgs",
        "securityOpt", "updateRemoteUserUID", "workspaceFolder", "workspaceMount",
    }
)  # fmt: skip
ADMINISTRATOR_CHOOSES = frozenset(
    {
        "build", "context", "dockerComposeFile", "dockerFile", "image", "overrideFeatureInstallOrder", "runServices",
        "service",
    }
)  # fmt: skip
NOT_RUN = frozenset({"initializeCommand", "postAttachCommand"})
"""On the person's own machine, and each time that an editor attaches: neither is ours."""
OF_AN_EDITOR = frozenset(
    {
        "$schema", "customizations", "extensions", "name", "otherPortsAttributes", "overrideCommand", "portsAttributes",
        "secrets", "settings", "shutdownAction", "userEnvProbe", "waitFor",
    }
)  # fmt: skip
READ = frozenset({*ONCE, *EACH_START, *VARIABLES, "features", "hostRequirements"})
MOST_VARIABLES, MOST_COMMANDS = 200, 32

Step = str | tuple[str, ...]
"""A line for the shell, or a program and its arguments."""


@dataclass(frozen=True)
class Document:
    """A file's content as it counts here."""

    commands: Mapping[str, Mapping[str, Step]] = field(default_factory=dict)
    """By field; the steps of one run side by side, each with its name (one without a name has an empty one)."""
    variables: tuple[Mapping[str, str | None], ...] = ()
    """Of `containerEnv` and of `remoteEnv`, which builds on what the first sets; None takes a variable away."""
    features: Mapping[str, Any] = field(default_factory=dict)
    asks_gpu: bool = False
    left_out: tuple[str, ...] = ()
    """One part of a sentence for each reason."""


def parse(content: bytes) -> Document:
    """Read a file: JSON with comments and trailing commas, as JSON5 knows them.

    Raises:
        ProjectError: it is not that, or a field has another shape than the specification gives it.
    """
    try:
        import json5  # what a project has not asked for need not be loaded, and an older image has it not
    except ImportError as error:
        raise ProjectError("this image has no reader of JSON with comments", "ask for a newer image") from error
    try:
        found = json5.loads(content.decode("utf-8-sig"))
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text that a program can be given
    except RecursionError as error:
        raise ProjectError("it is nested too deeply", "see containers.dev for what it may hold") from error
    except (ValueError, OverflowError) as error:
        where = str(error).replace("<string>:", "line ", 1)
        raise ProjectError(f"it is not JSON: {shown(where)}", "comments and trailing commas are fine") from error
    if not isinstance(found, dict):
        raise ProjectError("it is not a JSON object", "see containers.dev for what it may hold")
    requirements = found.get("hostRequirements")
    return Document(
        commands={name: steps for name in (*ONCE, *EACH_START) if (steps := _steps(name, found.get(name)))},
        variables=tuple(_variables(name, found.get(name)) for name in VARIABLES),
        features=_object("features", found.get("features")),
        asks_gpu=isinstance(requirements, dict) and requirements.get("gpu") not in (None, False, "optional"),
        left_out=tuple(_left_out(found)),
    )


def _steps(name: str, found: Any) -> dict[str, Step]:
    if isinstance(found, dict):
        if len(found) > MOST_COMMANDS:
            raise ProjectError(f"{name} has more than {MOST_COMMANDS} commands")
        steps = {key: _step(name, value) for key, value in found.items()}
    else:
        steps = {"": _step(name, found)}
    return {key: step for key, step in steps.items() if step}


def _step(name: str, found: Any) -> Step:
    if found is None:
        return ""
    words = [found] if isinstance(found, str) else found
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ProjectError(f"{name} must be a string, an array of strings, or an object of these")
    if any("\0" in word for word in words):
        raise ProjectError(f"{name} holds a NUL character")
    return found.strip() if isinstance(found, str) else tuple(words)


def _variables(name: str, found: Any) -> dict[str, str | None]:
    variables = _object(name, found)
    for key, value in variables.items():
        if value is not None and not isinstance(value, str):
            raise ProjectError(f"{name}: {shown(key, 40)} must be a string")
    if len(variables) > MOST_VARIABLES:
        raise ProjectError(f"{name} sets more than {MOST_VARIABLES} variables")
    return variables


def _object(name: str, found: Any) -> dict[str, Any]:
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ProjectError(f"{name} must be an object")
    return found


def _left_out(found: Mapping[str, Any]) -> Iterable[str]:
    unknown = set(found) - POLICY_DECIDES - ADMINISTRATOR_CHOOSES - NOT_RUN - OF_AN_EDITOR - READ
    for keys, reason in (
        (POLICY_DECIDES & set(found), "the policy decides"),
        (ADMINISTRATOR_CHOOSES & set(found), "the image is chosen by 'devgw create --image'"),
        (NOT_RUN & set(found), "not run here"),
        (unknown, "unknown"),
    ):
        if keys:
            names = [shown(key, 40) for key in sorted(keys)]
            more = [f"{len(names) - 12} more"] if len(names) > 12 else []
            yield f"{', '.join([*names[:12], *more])} ({reason})"
