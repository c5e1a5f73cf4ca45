"""What is said of a project's file in one line: what of it is left out here, and why."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from devgw_environment.contract import Environment
from devgw_environment.project.document import Document
from devgw_environment.project.features import lacking_features


def has_gpu(environment: Environment) -> bool:
    """Whether the gateway gave this environment a GPU."""
    try:
        found = json.loads((environment.config_folder / "environment.json").read_text(encoding="utf-8"))
        return bool(found.get("gpus"))
    except (OSError, ValueError, AttributeError):
        return False


def remark(document: Document, refused: Iterable[str], environment: Environment, variables: Mapping[str, str]) -> str:
    """One line, empty where the whole file counts."""
    search_path = variables.get("PATH", os.defpath)
    lacking, differing = lacking_features(document.features, search_path, lambda: has_gpu(environment))
    parts = []
    if left_out := [*document.left_out, *_named(refused, "kept as it is")]:
        parts.append(f"left out: {'; '.join(left_out)}")
    if lacking:
        parts.append(f"features that this image lacks: {_few(lacking)}")
    if differing:
        parts.append(f"another version is asked for: {_few(differing)}")
    if document.asks_gpu and not has_gpu(environment):
        parts.append("it asks for a GPU and this environment has none")
    return ". ".join(parts)


def brief(path: Path, home: Path) -> str:
    """A path of the home as a person types it."""
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def _named(names: Iterable[str], reason: str) -> list[str]:
    listed = list(names)
    return [f"{_few(listed)} ({reason})"] if listed else []


def _few(names: list[str]) -> str:
    return ", ".join([*names[:12], *([f"{len(names) - 12} more"] if len(names) > 12 else [])])
