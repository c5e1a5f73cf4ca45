"""The connection to one Docker Engine at an explicit address: opened when first used, errors translated."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import docker
import docker.errors
import requests
import urllib3

from gateway.engines.docker.errors import translate

FAULTS = (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError)
"""What docker's client raises; the last where the engine ends in the middle of an answer that comes in pieces."""

_TIMEOUT_SECONDS = 60  # an image layer is unpacked within `create` on a cold disk; everything else takes milliseconds


def daemon_of(base_url: str) -> int | None:
    """Return the process that listens on the engine's Unix socket; None where none does."""
    found = _listener(base_url)
    return None if found is None else found[0]


def owner_of(base_url: str) -> int | None:
    """Return the uid of that process."""
    found = _listener(base_url)
    return None if found is None else found[1]


def _listener(base_url: str) -> tuple[int, int] | None:
    """Return process and uid (SO_PEERCRED of unix(7))."""
    if not base_url.startswith("unix:"):
        return None
    with socket.socket(socket.AF_UNIX) as peer:
        try:
            peer.connect(base_url.removeprefix("unix://"))
        except OSError:
            return None
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    process, uid, _ = struct.unpack("iII", credentials)
    return int(process), int(uid)


class Connection:
    """Hands out docker's low-level client. Never the active docker CLI context, which could be another machine."""

    def __init__(self, base_url: str, timeout_seconds: int = _TIMEOUT_SECONDS) -> None:
        self.base_url = base_url
        self._timeout_seconds = timeout_seconds
        self._api: docker.APIClient | None = None
        self._opening = threading.Lock()

    @contextmanager
    def asked_to(self, doing: str) -> Iterator[docker.APIClient]:
        """Yield the client; what docker or requests raise inside leaves as a DevgwError that says `doing`."""
        try:
            yield self._opened()
        except FAULTS as exc:
            raise translate(exc, self.base_url, doing) from exc

    def is_local(self) -> bool:
        """Say whether the engine sees the same files as we do."""
        return self.base_url.startswith("unix:")

    def close(self) -> None:
        """Close what is open; a later call opens it again."""
        with self._opening:
            if self._api is not None:
                self._api.close()
                self._api = None

    def _opened(self) -> docker.APIClient:
        with self._opening:
            if self._api is None:
                self._api = docker.APIClient(
                    base_url=self.base_url, version="auto", timeout=self._timeout_seconds, use_ssh_client=True
                )
            return self._api
