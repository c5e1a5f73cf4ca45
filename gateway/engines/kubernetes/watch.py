"""What a cluster has of one kind, kept up to date by a watch: listed once, then told of each change.

Nothing is asked again while the watch lives; while the API is away, what was known last is the answer.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.errors import ApiRefusalError, ApiSilenceError

_log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0
_REMEMBERED = 256
_GONE = 410  # the version from which was watched is forgotten: list anew
Objects = Mapping[str, dict[str, Any]]


class Watched:
    """Objects by name. The first question lists and begins to watch; it raises what the API answers."""

    def __init__(self, cluster: Cluster, path: str, selector: str = "") -> None:
        self._cluster = cluster
        self._path = path
        self._query = {"labelSelector": selector} if selector else {}
        self._changed = threading.Condition()
        self._beginning = threading.Lock()
        self._objects: dict[str, dict[str, Any]] = {}
        self._gone: dict[str, dict[str, Any]] = {}
        self._version = ""
        self._loop: asyncio.AbstractEventLoop | None = None

    def all(self) -> Objects:
        """Return what there is. Raises: ApiRefusalError, ApiSilenceError, at the first question only."""
        self._begin()
        with self._changed:
            return dict(self._objects)

    def known(self) -> Objects:
        """Return what there is as far as was told; asks nobody, and never blocks."""
        with self._changed:
            return dict(self._objects)

    def last(self, name: str) -> dict[str, Any] | None:
        """Return an object as it was seen last, also one that has just gone."""
        with self._changed:
            return self._objects.get(name) or self._gone.get(name)

    def wait_for(self, is_reached: Callable[[Objects], bool], deadline: float) -> bool:
        """Block until it is reached, looking at each change; False at the deadline (`time.monotonic`)."""
        self._begin()
        with self._changed:
            while not is_reached(self._objects):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def _begin(self) -> None:
        loop = self._cluster.running_loop()
        with self._beginning:
            if self._loop is loop:
                return
            self._cluster.run(self._list())
            self._loop = loop
            self._cluster.submit(self._follow())

    async def _list(self) -> None:
        listed = await self._cluster.ask("GET", self._path, query=self._query)
        with self._changed:
            self._objects = {one["metadata"]["name"]: one for one in listed["items"]}
            self._version = listed["metadata"]["resourceVersion"]
            self._changed.notify_all()

    async def _follow(self) -> None:
        pause, must_list = _FIRST_PAUSE_SECONDS, False
        while True:
            try:
                if must_list:
                    await self._list()
                    must_list = False
                async for event in self._cluster.watch(self._path, {**self._query, "resourceVersion": self._version}):
                    self._take(event)
                    pause = _FIRST_PAUSE_SECONDS
            except (ApiRefusalError, ApiSilenceError) as exc:
                must_list = not isinstance(exc, ApiSilenceError) or must_list
                if not (isinstance(exc, ApiRefusalError) and exc.status == _GONE):
                    _log.info("the watch of %s ended: %s", self._path, exc)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            except (KeyError, ValueError) as exc:  # an answer cut off in its middle
                _log.info("the watch of %s was cut: %s", self._path, exc)
                must_list = True
                await asyncio.sleep(pause)

    def _take(self, event: Mapping[str, Any]) -> None:
        found = event["object"]
        with self._changed:
            self._version = found["metadata"]["resourceVersion"]
            if event["type"] == "BOOKMARK":
                return
            if event["type"] == "DELETED":
                self._objects.pop(found["metadata"]["name"], None)
                self._gone[found["metadata"]["name"]] = found
                while len(self._gone) > _REMEMBERED:
                    self._gone.pop(next(iter(self._gone)))
            else:
                self._objects[found["metadata"]["name"]] = found
            self._changed.notify_all()
