"""The role's filters: settings as TOML, and what devgw must be told so that it knows the people of a list."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_KEY = re.compile(r"((?:ssh|ecdsa|sk)-\S+)\s+(AAAA[A-Za-z0-9+/]+=*)")


def settings_as_toml(settings: Mapping[str, Any]) -> str:
    """Write a mapping of settings as devgw.toml. Raises: ValueError, which names the setting."""
    lines = ["# Written by Ansible's role devgw: what is changed here is undone by its next run."]
    sections = {name: values for name, values in settings.items() if isinstance(values, Mapping)}
    lines += [f"{_key(key)} = {_value(value, key)}" for key, value in settings.items() if key not in sections]
    for section, values in sections.items():
        lines += ["", f"[{_key(section)}]"]
        lines += [f"{_key(key)} = {_value(value, f'{section}.{key}')}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def acts_on_users(
    wanted: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]], *, exclusive: bool = True
) -> list[dict[str, Any]]:
    """Return the commands that make `known` (of `devgw user list -o json`) into `wanted`, in order.

    Each has `arguments`, `stdin` and a `label`. With `exclusive` keys that the list does not have are taken away, after
    the new ones were let in. Raises: ValueError, for a name that stands there twice or a line without a key.
    """
    there = {user["name"]: user for user in known}
    names = [str(user["name"]) for user in wanted]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"devgw_users names {', '.join(twice)} twice")
    return [act for user in wanted for act in _acts_on(user, there.get(user["name"]), exclusive=exclusive)]


def _acts_on(user: Mapping[str, Any], known: Mapping[str, Any] | None, *, exclusive: bool) -> list[dict[str, Any]]:
    name = user["name"]
    lines = {_blob(line, name): line.strip() for line in user.get("keys") or []}
    held = {} if known is None else {_blob(key["line"], name): key["fingerprint"] for key in known["public_keys"]}
    acts = [] if known is not None else [_act(f"make {name} known", "user", "add", name)]
    acts += [
        _act(f"let in a key of {name}", "key", "add", name, "-", stdin=line)
        for blob, line in lines.items()
        if blob not in held
    ]
    if exclusive:
        acts += [
            _act(f"shut out {fingerprint} of {name}", "key", "remove", name, fingerprint)
            for blob, fingerprint in held.items()
            if blob not in lines
        ]
    is_disabled = known is not None and known["disabled"]
    if (user.get("state", "present") == "disabled") != is_disabled:
        verb = "enable" if is_disabled else "disable"
        acts.append(_act(f"{verb} {name}", "user", verb, name))
    return acts


def _act(label: str, *arguments: str, stdin: str = "") -> dict[str, Any]:
    return {"label": label, "arguments": list(arguments), "stdin": stdin}


def _blob(line: str, name: str) -> str:
    """Return what makes a key the key it is; options and comments do not."""
    found = _KEY.search(line)
    if found is None:
        raise ValueError(f"devgw_users: {line.strip()[:40]!r} of {name} is no public key")
    return f"{found[1]} {found[2]}"


def _key(name: object) -> str:
    text = str(name)
    return text if _BARE.fullmatch(text) else _text(text)


def _text(text: str) -> str:
    """Write a text as JSON does, which TOML reads; only DEL stands in JSON as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: object, name: str) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(key)} = {_value(part, f'{name}.{key}')}" for key, part in value.items()) + " }"
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, str):
        return _text(str(value))
    if isinstance(value, Sequence):
        return "[" + ", ".join(_value(part, name) for part in value) + "]"
    raise ValueError(f"devgw_settings: {name} is {value!r}, and TOML has no such value")


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by the names that tasks use."""
        return {"devgw_settings_as_toml": settings_as_toml, "devgw_acts_on_users": acts_on_users}
