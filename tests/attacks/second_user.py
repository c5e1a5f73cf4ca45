"""A second user who works while somebody attacks, and must notice nothing: one tunnel, correct bytes, no new login."""

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Self

from tests.fuzz.gateway_under_fire import GatewayUnderFire
from tests.support.environment_inside import blob

BODY_BYTES = 100_003
BREATH_SECONDS = 0.05
"""Between two downloads: the second user shares the machine with the attack."""


class SecondUser:
    """Downloads the same bytes over and over through one tunnel and compares them."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._body = blob(BODY_BYTES)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.downloads = 0
        self.complaints: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _work(self) -> None:
        while not self._ended.is_set() and not self.complaints:
            self.download()
            self._ended.wait(BREATH_SECONDS)

    def download(self) -> None:
        """Fetch once; note what was not as it should be."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/?size={BODY_BYTES}", timeout=20) as answer:
                body = answer.read()
        except (OSError, HTTPException) as error:
            self.complaints.append(f"download {self.downloads}: {error}")
            return
        if body != self._body:
            self.complaints.append(f"download {self.downloads}: {len(body)} bytes that differ")
        self.downloads += 1


@contextmanager
def second_user(gateway: GatewayUnderFire) -> Iterator[SecondUser]:
    """Let bob work for as long as the block runs; afterwards hold that he did and that all was right."""
    with gateway.tunnel("bob") as port:
        with SecondUser(port) as bob:
            yield bob
        bob.download()  # the last one begins after the attack
    assert bob.complaints == []
    assert bob.downloads > 0
