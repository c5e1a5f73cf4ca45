"""The connection to one cluster's API: objects as dictionaries, watches and exec streams.

Everything happens on an event loop of its own in a background thread; the methods here block, as engines do. The
library finds the cluster and its credentials; its model classes are not used, so an older or newer API is read alike.
"""

import asyncio
import atexit
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import uvloop
from kubernetes_asyncio import config as kube_config
from kubernetes_asyncio.client import ApiClient, Configuration

from gateway.config.sections import KubernetesSettings
from gateway.engines.kubernetes.errors import ApiRefusalError, ApiSilenceError, refusal_of, translate
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)
_STREAM_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10)
_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 0.25
_LOST = (aiohttp.ClientError, asyncio.TimeoutError, OSError)
_BUSY = frozenset({429, 500, 502, 503, 504})
_REPEATABLE = frozenset({"GET", "PATCH", "DELETE"})
_PROTOCOL = "v4.channel.k8s.io"


class Cluster:
    """One cluster as the settings name it; opened when first used, and again after a fork."""

    def __init__(self, settings: KubernetesSettings) -> None:
        self._settings = settings
        self._opening = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._api: ApiClient | None = None
        self._former: list[ApiClient] = []
        self._address = ""

    @property
    def address(self) -> str:
        """The API server's URL, as far as it is known."""
        return self._address or "the configured address"

    @contextmanager
    def asked_to(self, doing: str) -> Iterator[None]:
        """Let what the API refuses or loses inside leave as a DevgwError that says `doing`."""
        try:
            yield
        except (ApiRefusalError, ApiSilenceError) as exc:
            raise translate(exc, self.address, doing) from exc

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Read an object or a list. Raises: ApiRefusalError, ApiSilenceError."""
        return self.run(self.ask("GET", path, query=query))

    def find(self, path: str) -> dict[str, Any] | None:
        """Read an object; None where there is none. Raises: ApiRefusalError, ApiSilenceError."""
        try:
            return self.get(path)
        except ApiRefusalError as exc:
            if exc.status == 404 and exc.details.get("kind") != "namespaces":
                return None
            raise

    def create(self, path: str, body: Mapping[str, Any], *, is_trial: bool = False) -> dict[str, Any]:
        """Make an object; a trial goes all the way but is not kept. Raises: ApiRefusalError, ApiSilenceError."""
        query = {"dryRun": "All"} if is_trial else {}
        return self.run(self.ask("POST", path, body=body, query=query))

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Merge a change into an object (RFC 7396). Raises: ApiRefusalError, ApiSilenceError."""
        return self.run(self.ask("PATCH", path, body=body, content_type="application/merge-patch+json"))

    def delete(self, path: str, *, grace_seconds: int | None = None, uid: str = "") -> None:
        """Delete an object, the one with that uid alone; an absent one is deleted.

        Raises:
            ApiRefusalError, ApiSilenceError.
        """
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self.run(self.ask("DELETE", path, body=options))
        except ApiRefusalError as exc:
            if exc.status != 404 and not (uid and exc.status == 409):
                raise

    def text(self, path: str, **query: str) -> str:
        """Read what is no object, such as a log. Raises: ApiRefusalError, ApiSilenceError."""
        return self.run(self.ask_text(path, query)).decode(errors="replace")

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Have the loop do something, and wait for it. Raises: what it raises."""
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C: nobody waits for it any more
            raise

    def submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Have the loop do something."""
        return asyncio.run_coroutine_threadsafe(work, self.running_loop())

    def close(self) -> None:
        """Close what is open; a later call opens it again."""
        with self._opening:
            loop, self._loop = self._loop, None
            if loop is None or self._pid != os.getpid():
                return
            asyncio.run_coroutine_threadsafe(self._shut(), loop).result(5)
            loop.call_soon_threadsafe(loop.stop)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        """Ask once, or several times where the API is busy or a connection breaks and asking again does no harm."""
        data = None if body is None else json.dumps(body).encode()

        async def once() -> dict[str, Any]:
            async with self._answer(
                method, path, query or {}, data=data, headers={"Content-Type": content_type}
            ) as answer:
                read: dict[str, Any] = await answer.json(content_type=None)
                return read

        return await self._patiently(once, is_repeatable=method in _REPEATABLE)

    async def ask_text(self, path: str, query: Mapping[str, str]) -> bytes:
        """Read a log."""

        async def once() -> bytes:
            async with self._answer("GET", path, query) as answer:
                return await answer.read()

        return await self._patiently(once, is_repeatable=True)

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of a watch until the API ends it. Raises: ApiRefusalError, ApiSilenceError."""
        asked = {**query, "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": "240"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=300)
        try:
            async with self._answer("GET", path, asked, timeout=timeout) as answer:
                buffer = b""
                async for piece in answer.content.iter_any():
                    *lines, buffer = (buffer + piece).split(b"\n")
                    for line in lines:
                        event = json.loads(line)
                        if event["type"] == "ERROR":
                            raise refusal_of(500, event["object"])
                        yield event
        except _LOST as exc:
            raise ApiSilenceError(str(exc) or type(exc).__name__) from exc

    async def exec(self, path: str, command: list[str]) -> aiohttp.ClientWebSocketResponse:
        """Open an exec stream with stdin, stdout and stderr. Raises: ApiRefusalError, ApiSilenceError."""
        api = await self._opened()
        headers = await self._headers(api)
        words = [("command", word) for word in command]
        flags = [("stdin", "true"), ("stdout", "true"), ("stderr", "true"), ("tty", "false")]
        try:
            return await api.rest_client.pool_manager.ws_connect(
                f"{self._address}{path}/exec",
                params=[*words, *flags],
                protocols=[_PROTOCOL],
                headers=headers,
                max_msg_size=0,
                compress=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=2),
            )
        except aiohttp.WSServerHandshakeError as exc:
            raise ApiRefusalError(exc.status, "", f"no exec stream: {exc.message}") from exc
        except _LOST as exc:
            raise ApiSilenceError(str(exc) or type(exc).__name__) from exc

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        timeout: aiohttp.ClientTimeout = _TIMEOUT,  # noqa: ASYNC109 - aiohttp's own
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        api = await self._opened()
        sent = {**await self._headers(api), **(headers or {})}
        async with api.rest_client.pool_manager.request(
            method, f"{self._address}{path}", params=dict(query), data=data, headers=sent, timeout=timeout
        ) as answer:
            if answer.status >= 400:
                text = await answer.text()
                raise refusal_of(answer.status, _json_or_none(text), text)
            yield answer

    async def _patiently(self, once: Callable[[], Coroutine[Any, Any, T]], *, is_repeatable: bool) -> T:
        pause = _FIRST_PAUSE_SECONDS
        for attempt in range(1, _ATTEMPTS + 1):
            is_last = attempt == _ATTEMPTS or not is_repeatable
            try:
                return await once()
            except ApiRefusalError as exc:
                if exc.status == 401 and attempt == 1:
                    self._forget_credentials()
                    continue
                if exc.status not in _BUSY or is_last:
                    raise
            except _LOST as exc:
                if is_last:
                    raise ApiSilenceError(str(exc) or type(exc).__name__) from exc
            await asyncio.sleep(pause)
            pause *= 2
        raise ApiSilenceError("it does not answer")

    async def _headers(self, api: ApiClient) -> dict[str, str]:
        headers = {"Accept": "application/json, */*"}  # `application/json` alone refuses streams and logs
        await api.update_params_for_auth(headers, [], ["BearerToken"])
        return headers

    async def _opened(self) -> ApiClient:
        if self._api is None:
            found = type.__call__(Configuration)
            await self._locate(found)
            found.connection_pool_maxsize = 0  # each exec stream and each watch is a connection for long
            self._address = str(found.host).rstrip("/")
            self._api = ApiClient(found)
        return self._api

    async def _locate(self, found: Configuration) -> None:
        try:
            if not self._settings.kubeconfig and is_in_cluster():
                kube_config.load_incluster_config(client_configuration=found)  # type: ignore[no-untyped-call]
                return
            await kube_config.load_kube_config(
                config_file=self._settings.kubeconfig or None,
                context=self._settings.context or None,
                client_configuration=found,
                persist_config=False,
            )
        except (kube_config.ConfigException, OSError, ValueError, TypeError, KeyError) as exc:
            raise ConfigError(
                "config.no-cluster",
                f"no cluster is configured: {' '.join(str(exc).split())[:200]}",
                "set kubernetes.kubeconfig and kubernetes.context, or run the gateway in the cluster",
            ) from exc

    def _forget_credentials(self) -> None:
        """Read them anew at the next question; streams that are open go on."""
        if self._api is not None:
            self._former.append(self._api)
            self._api = None

    async def _shut(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:  # watches, and streams that nobody closed
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._forget_credentials()
        while self._former:
            await self._former.pop().close()

    def running_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop, begun where there is none yet in this process."""
        with self._opening:
            if self._loop is None or self._pid != os.getpid():
                self._api, self._former = None, []
                self._loop, self._pid = uvloop.new_event_loop(), os.getpid()
                threading.Thread(target=self._loop.run_forever, name="kubernetes", daemon=True).start()
                atexit.register(self._at_exit)
            return self._loop

    def _at_exit(self) -> None:
        with suppress(Exception):  # the process ends
            self.close()


def is_in_cluster() -> bool:
    """Say whether this process runs in a pod with an account of its own."""
    return _TOKEN.exists()


def _json_or_none(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
