"""Reading a policy file: TOML, then the model, then the policy's own tests. Every fault names file, line and key."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from policies.document import KeyedError
from policies.keys import CertificateAuthority
from policies.model import Policy
from policies.policy_tests.assertions import Assertion
from policies.policy_tests.run import run_policy_tests
from policies.role import Denials, Grant, Role
from policies.source import Source, locate, syntax_fault

DEFAULT_POLICY = Path(__file__).parent / "default.toml"
_LARGEST_BYTES = 16 * 2**20


class PolicyError(Exception):
    """A policy that cannot be used. `line` is 0 where the fault is the file's as a whole."""

    def __init__(self, message: str, file: str, line: int = 0, key: str = "") -> None:
        place = f"{file}:{line}" if line else file
        super().__init__(f"{place}: {key}: {message}" if key else f"{place}: {message}")
        self.message = message
        self.file = file
        self.line = line
        self.key = key


def load_policy(path: Path) -> Policy:
    """Read a policy file that passes its own tests. Raises: PolicyError."""
    return parse_policy(read_policy_text(path), str(path))


def read_policy_text(path: Path) -> str:
    """Read a policy file's text, for those who keep it. Raises: PolicyError."""
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
        text = content.decode()
    except OSError as exc:
        raise PolicyError(exc.strerror or "cannot be read", str(path)) from exc
    except UnicodeDecodeError as exc:
        line = content[: exc.start].count(b"\n") + 1
        raise PolicyError("not UTF-8", str(path), line) from exc
    if len(content) > _LARGEST_BYTES:
        raise PolicyError(f"larger than {_LARGEST_BYTES >> 20} MiB", str(path))
    return text


def parse_policy(text: str, source: str) -> Policy:
    """Read a policy from text; `source` is the name that rules and errors carry. Raises: PolicyError."""
    policy = parse_untested(text, source)
    failed = [trial for trial in run_policy_tests(policy) if not trial.passed]
    if failed:
        first = failed[0]
        expected = "allowed" if first.must_allow else "denied"
        answer = f"{first.user}: {first.question!r} must be {expected}, but: {first.decision.reason}"
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise PolicyError(f"its own test fails: {answer} [{first.decision.rule}]{more}", source, first.line, first.key)
    return policy


def parse_untested(text: str, source: str) -> Policy:
    """Read a policy without running its tests, for `devgw policy test`, which shows them all. Raises: PolicyError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        line, said = syntax_fault(text, exc)
        raise PolicyError(said, source, line) from exc
    places = locate(text, source)
    try:
        return Policy.model_validate(data, context=places)
    except ValidationError as exc:
        errors = exc.errors(include_url=False)
        unknown = (error for error in errors if error["type"] == "extra_forbidden")
        raise _fault(next(unknown, errors[0]), places) from exc  # a mistyped key explains the one that is missing


def _fault(error: Mapping[str, Any], places: Source) -> PolicyError:
    """Turn pydantic's first error into one line in the policy's own words."""
    cause = error.get("ctx", {}).get("error")
    key = cause.key if isinstance(cause, KeyedError) else ".".join(_words(error["loc"]))
    message = str(cause) if cause is not None else str(error["msg"])
    if error["type"] == "extra_forbidden":
        message = "unknown key" + _near(error["loc"])
    elif error["type"] == "missing":
        message = "is missing"
    elif error["type"] == "string_pattern_mismatch":
        message = f"{ascii(error['input'])[:60]} does not match {error['ctx']['pattern']}"
    return PolicyError(message[:1].lower() + message[1:], places.name, places.line(key), key)


def _words(location: Sequence[str | int]) -> list[str]:
    """Leave out what pydantic adds to a location, such as `[key]` for a bad name of a table."""
    return [str(word) for word in location if word != "[key]"]


_TABLES: tuple[tuple[re.Pattern[str], type[BaseModel]], ...] = (
    (re.compile(r"roles\.[^.]+\.deny"), Denials),
    (re.compile(r"roles\.[^.]+"), Role),
    (re.compile(r"grants\.\d+"), Grant),
    (re.compile(r"tests\.\d+"), Assertion),
    (re.compile(r"certificate_authorities\.[^.]+"), CertificateAuthority),
    (re.compile(r""), Policy),
)


def _near(location: Sequence[str | int]) -> str:
    """Suggest the field that a mistyped one resembles."""
    *table, mistyped = _words(location)
    model = next((model for pattern, model in _TABLES if pattern.fullmatch(".".join(table))), None)
    names = [field.alias or name for name, field in model.model_fields.items()] if model else []
    near = get_close_matches(mistyped, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
