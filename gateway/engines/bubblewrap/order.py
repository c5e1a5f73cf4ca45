"""What the engine orders of a supervisor, and how it learns whether that came about."""

import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gateway
from gateway.engines.bubblewrap.errors import failed
from gateway.engines.bubblewrap.network import Stack
from gateway.engines.bubblewrap.sandbox import Sandbox
from gateway.errors import EngineError, NotFoundError

_ANSWER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Order:
    """One sandbox to supervise.

    `ids` is whom to become first, and in which groups; None for a gateway that is not root. `report` is the descriptor
    for the answer.
    """

    bwrap: str
    sandbox: Sandbox
    memory_bytes: int
    report: int
    made_groups: tuple[Path, ...] = ()
    in_scope: bool = False
    ids: tuple[int, int] | None = None
    groups: tuple[int, ...] = ()
    stack: Stack | None = None

    @classmethod
    def read(cls, found: dict[str, Any]) -> "Order":
        """Read what `asdict` made of one, after it was JSON."""
        return cls(
            **{
                **found,
                "sandbox": Sandbox.read(found["sandbox"]),
                "made_groups": tuple(Path(group) for group in found["made_groups"]),
                "ids": tuple(found["ids"]) if found["ids"] else None,
                "groups": tuple(found["groups"]),
                "stack": Stack(**found["stack"]) if found["stack"] else None,
            }
        )


def give(order: Order, directory: Path, prefix: list[str], answer: int) -> None:
    """Start a supervisor that outlives us, and wait on `answer` until its sandbox is up; both descriptors are used up.

    Raises:
        DevgwError: what the supervisor said, or that it said nothing.
    """
    command = [*prefix, sys.executable, "-P", "-m", "gateway.engines.bubblewrap.supervisor", str(directory)]
    words = directory / "supervisor.log"
    try:
        with words.open("wb") as output:
            subprocess.run(  # returns at once: the supervisor forks away
                command,
                input=json.dumps(asdict(order), default=str).encode(),
                stdout=output,
                stderr=output,
                cwd="/",
                env={**os.environ, "PYTHONPATH": str(Path(gateway.__file__).resolve().parents[1])},
                pass_fds=[order.report],
                start_new_session=True,
                check=False,
            )
    finally:
        os.close(order.report)
    _raise_refusal(_answer(answer), words)


def _answer(descriptor: int) -> bytes:
    """Read until the supervisor closes its end, by a deadline."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    received = b""
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        arrivals = select.poll()  # select(2) knows no descriptor from 1024 on, and a gateway has many
        arrivals.register(file, select.POLLIN)
        while arrivals.poll(max(0.0, deadline - time.monotonic()) * 1000):
            chunk = file.read(4096)
            if not chunk:
                break
            received += chunk
    return received


def _raise_refusal(answer: bytes, words: Path) -> None:
    if not answer:
        tail = words.read_text(errors="replace").strip().splitlines()[-1:]
        raise failed("start the sandbox", tail[0] if tail else "its supervisor said nothing")
    refusal = json.loads(answer)
    if refusal["code"]:
        kind = NotFoundError if refusal["code"].endswith("not-found") else EngineError
        raise kind(refusal["code"], refusal["message"], refusal["hint"])
