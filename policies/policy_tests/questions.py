"""Questions in words, as `[[tests]]` and `devgw policy explain` ask them: `forward localhost:6006`, `create gpus=2`."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from policies.egress_hosts import HTTPS_PORT
from policies.quantities import parse_duration, parse_size
from policies.requests import (
    AgentForwardingRequest,
    CreateRequest,
    EgressHostRequest,
    ForwardRequest,
    LoginRequest,
    PageLevel,
    PageRequest,
    Request,
    ReverseForwardRequest,
    SessionRequest,
    SharedRequest,
    StreamlocalRequest,
    Subject,
    VariableRequest,
)

GRAMMAR = """\
login | shell | exec | sftp | forward [HOST:]PORT | reverse-forward [HOST:]PORT | streamlocal PATH |
streamlocal-listen PATH | agent-forwarding | variable NAME | dataset NAME | image NAME | gpu [COUNT] | egress WHAT |
egress-host NAME[:PORT] | shared NAME [ro|rw] | page user|auditor|admin |
create [image=NAME] [memory=SIZE] [disk=SIZE] [cpus=N] [gpus=N] [profile=NAME,...]
       [dataset=NAME,...] [egress=WHAT]
       [lifetime=DURATION] [environments=N] [gpus-held=N]"""

_Values = dict[str, Any]
_CREATE_WORDS: dict[str, Callable[[str], _Values]] = {
    "image": lambda text: {"image": text},
    "memory": lambda text: {"memory_bytes": parse_size(text)},
    "disk": lambda text: {"disk_bytes": parse_size(text)},
    "cpus": lambda text: {"cpus": float(text)},
    "gpus": lambda text: {"gpus": int(text)},
    "profile": lambda text: {"gpu_profiles": tuple(text.split(","))},
    "dataset": lambda text: {"datasets": tuple(text.split(","))},
    "egress": lambda text: {"egress": text},
    "lifetime": lambda text: {"lifetime_seconds": parse_duration(text)},
    "environments": lambda text: {"environments": int(text)},
    "gpus-held": lambda text: {"gpus_held": int(text)},
}


def parse_question(text: str, subject: Subject, at: datetime, *, defaults: _Values | None = None) -> Request:
    """Turn a question into the request it asks about. Raises: ValueError, with the grammar's word that is wrong.

    What a `create` question leaves out is taken from `defaults`, the values of CreateRequest that are always allowed.
    """
    verb, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    if verb in {"shell", "exec", "sftp"} and not rest:
        return SessionRequest(subject, at, verb)  # type: ignore[arg-type]  # one of the three literals by the test above
    simple: dict[str, Callable[[], Request]] = {
        "login": lambda: LoginRequest(subject, at),
        "agent-forwarding": lambda: AgentForwardingRequest(subject, at),
    }
    with_word: dict[str, Callable[[str], Request]] = {
        "forward": lambda word: ForwardRequest(subject, at, *_host_and_port(word)),
        "reverse-forward": lambda word: ReverseForwardRequest(subject, at, *_host_and_port(word)),
        "streamlocal": lambda word: StreamlocalRequest(subject, at, word),
        "streamlocal-listen": lambda word: StreamlocalRequest(subject, at, word, listen=True),
        "variable": lambda word: VariableRequest(subject, at, word),
        "page": lambda word: PageRequest(subject, at, _level(word)),
        "shared": lambda word: SharedRequest(subject, at, *_name_and_right(word)),
        "egress-host": lambda word: EgressHostRequest(subject, at, *_name_and_port(word)),
    }
    if verb in simple and not rest:
        return simple[verb]()
    if verb in with_word and rest:
        return with_word[verb](rest)
    return _create(verb, rest, subject, at, defaults or {})


def _create(verb: str, rest: str, subject: Subject, at: datetime, defaults: _Values) -> Request:
    words = {"gpu": f"gpus={rest or 1}", "dataset": f"dataset={rest}", "image": f"image={rest}"}
    words |= {"egress": f"egress={rest}", "create": rest}
    if verb not in words or (not rest and verb not in {"create", "gpu"}):
        raise ValueError(f"{verb!r} is no question, or lacks its object; a question is one of: {GRAMMAR}")
    values: _Values = {"image": "", "memory_bytes": 0, "cpus": 0.0} | defaults
    for word in words[verb].split():
        name, equals, value = word.partition("=")
        if not equals or name not in _CREATE_WORDS:
            raise ValueError(
                f"{word!r} is no part of a create question; write one of {', '.join(_CREATE_WORDS)} with '='"
            )
        values |= _CREATE_WORDS[name](value)
    return CreateRequest(subject, at, **values)


def _name_and_right(text: str) -> tuple[str, bool]:
    name, *rights = text.split()
    if len(rights) > 1 or (rights and rights[0] not in {"ro", "rw"}):
        raise ValueError(f"{' '.join(rights)!r} is no right to a shared volume: ro, rw")
    return name, rights == ["rw"]


def _level(word: str) -> PageLevel:
    if word not in {"user", "auditor", "admin"}:
        raise ValueError(f"{word!r} is no page: user, auditor, admin")
    return cast("PageLevel", word)


def _name_and_port(text: str) -> tuple[str, int]:
    name, colon, port = text.partition(":")
    if colon and not port.isdecimal():
        raise ValueError(f"{text!r} is no NAME[:PORT]")
    return name, int(port) if colon else HTTPS_PORT


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal():
        raise ValueError(f"{text!r} is no [HOST:]PORT")
    return host.removeprefix("[").removesuffix("]") if host.startswith("[") else host or "localhost", int(port)
