"""Writes a first devgw.toml out of the settings themselves: every key with its words and its default, commented out."""

import ast
import inspect
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gateway.cli.quantities import size_text
from gateway.config import Settings, parse_size
from gateway.version import VERSION

_HEAD = f"""\
# devgw.toml, written by devgw {VERSION}. Every setting with its default; take the '#' away to change one.
# A flag wins over DEVGW_<SECTION>_<KEY>, that over this file, and this file over the default.
# What is allowed stands in policy.toml beside this file, not here.
"""
_DATASETS = """\

# Read-only directories an environment may ask for with --dataset NAME.
#[datasets.imagenet]
#path = "/srv/datasets/imagenet"
"""


def write_template() -> str:
    """Return the text of a devgw.toml that changes nothing."""
    return _HEAD + "".join(_top_level()) + "".join(_sections()) + _DATASETS


def sections() -> dict[str, type[BaseModel]]:
    """Return the sections of the settings by name."""
    kinds = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, BaseModel)}


def top_level_keys() -> list[str]:
    """Return the keys outside every section that a file may set; the four directories come from the environment."""
    return [name for name in Settings.model_fields if name in {"database_url", "policy_file"}]


def _top_level() -> Iterator[str]:
    for name in top_level_keys():
        yield "\n" + _setting(name, Settings.model_fields[name], words_of(Settings)[name])


def _sections() -> Iterator[str]:
    for name, kind in sections().items():
        yield f"\n# {' '.join((kind.__doc__ or '').split())}\n[{name}]\n"
        words = words_of(kind)
        for key, field in kind.model_fields.items():
            yield _setting(key, field, words[key])


def _setting(key: str, field: FieldInfo, words: str) -> str:
    return f"# {words}\n#{key} = {default_of(field)}\n"


def words_of(kind: type[BaseModel]) -> dict[str, str]:
    """Return what stands under each key in the source; pydantic would read it at every start of every command."""
    (source,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(source, ast.ClassDef)  # noqa: S101 - tells the type checker what a class's source is
    words = {}
    for line, following in pairwise(source.body):
        match line, following:
            case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(text))):
                words[key] = " ".join(text.split())
    return words


def default_of(field: FieldInfo) -> str:
    """Write a setting's default as TOML, sizes as people write them."""
    default = field.get_default()
    is_size = any(getattr(part, "func", None) is parse_size for part in field.metadata)
    return f'"{size_text(default)}"' if is_size else toml_of(default)


def toml_of(value: Any) -> str:
    """Write a default as TOML; JSON's strings, numbers, booleans and lists are TOML's too."""
    if isinstance(value, BaseModel):
        return f"{{ {', '.join(f'{key} = {toml_of(part)}' for key, part in value)} }}"
    if isinstance(value, tuple):
        return f"[{', '.join(toml_of(part) for part in value)}]"
    if value is None or isinstance(value, Path):
        return json.dumps("/path/to/it" if value is None else str(value))
    return json.dumps(value)
