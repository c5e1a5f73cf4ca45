"""What the source says of a user to the target, and what that answers: JSON, checked field by field on both sides."""

from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import MoveError
from gateway.model import NAME_PATTERN

FORMAT = 1
_LARGEST_BYTES = 256 * 2**20
_Name = Annotated[str, Field(pattern=NAME_PATTERN)]
_MoveId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
M = TypeVar("M", bound="_Message")


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class KeySaid(_Message):
    """A public key."""

    fingerprint: str
    algorithm: str
    bits: int
    line: str
    comment: str = ""
    added_at: datetime | None = None
    last_used_at: datetime | None = None


class EnvironmentSaid(_Message):
    """One environment. `volume_bytes` is what each of its volumes holds."""

    name: _Name
    image: str
    memory_bytes: int
    cpus: float
    pids: int
    shm_bytes: int
    disk_bytes: int = 0
    gpu_request: str
    datasets: tuple[str, ...] = ()
    egress: str
    created_at: datetime
    last_active_at: datetime | None = None
    password_hash: str
    """Of the notebook's password, by bcrypt."""
    volume_bytes: dict[str, int]


class Description(_Message):
    """A user with all that goes along but the files."""

    format: int = FORMAT
    devgw: str
    id: _MoveId
    user: _Name
    source: str
    """The host the user comes from, by the name that its users know."""
    by: str
    reason: str = ""
    disabled: bool = False
    roles: tuple[str, ...] = ()
    keys: tuple[KeySaid, ...] = ()
    environments: tuple[EnvironmentSaid, ...] = ()
    share: float | None = None
    history: dict[str, list[dict[str, Any]]] = {}


class Reply(_Message):
    """What the target answers to each question."""

    format: int = FORMAT
    devgw: str
    step: str
    """The last that is done there; empty before the first."""
    host: str = ""
    ssh_line: str = ""
    """How the user connects there."""
    uid: int = 0
    notes: tuple[str, ...] = ()


def parse(kind: type[M], content: bytes | str, of: str) -> M:
    """Read a message; `of` names where it comes from. Raises: MoveError `move.bad-description`."""
    try:
        if len(content) > _LARGEST_BYTES:
            raise MoveError("move.bad-description", f"what {of} says is larger than any user's", "is it devgw's?")
        return kind.model_validate_json(content)
    except ValidationError as exc:
        first = exc.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "its beginning"
        message = f"what {of} says cannot be read: {place}: {first['msg'].lower()}"
        hint = "both hosts need devgw of the same version; 'devgw version' says which it is"
        raise MoveError("move.bad-description", message, hint) from exc
