"""The images of a Docker engine: by digest, with every name; pulled, loaded, removed and read without running them."""

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

import docker
import docker.errors

from gateway.engines.docker.connection import Connection
from gateway.engines.docker.errors import image_not_found, one_line
from gateway.engines.docker.names import familiar
from gateway.engines.image_store import PackageFiles, StoredImage, import_failed, refuse_in_use
from gateway.engines.interface import Image, Progress
from gateway.errors import EngineError

_TIMEOUT_SECONDS = 1800  # between two lines of a pull, or two blocks of an archive
_LOADED = ("Loaded image ID: ", "Loaded image: ")
_LARGEST_FILE = 64 << 20  # dpkg's own status file has a few megabytes


class DockerImageStore:
    """The images behind one address."""

    is_self_contained = True

    def __init__(self, base_url: str) -> None:
        self._connection = Connection(base_url, _TIMEOUT_SECONDS)

    def all(self) -> list[StoredImage]:
        with self._connection.asked_to("list images") as api:
            return [
                StoredImage(one["Id"], names, dict(one["Labels"] or {}), int(one.get("Size", 0)))
                for one in api.images()
                for names in [tuple(map(familiar, _names(one["RepoTags"])))]
            ]

    def pull(self, reference: str, progress: Progress) -> Image:
        repository, tag = _split(reference)
        with self._connection.asked_to(f"pull {reference}") as api:
            try:
                for message in api.pull(repository, tag=tag, stream=True, decode=True):
                    _follow(message, progress)
            except docker.errors.APIError as exc:
                raise _pull_failed(reference, str(exc.explanation or exc)) from exc
            except _StreamError as exc:
                raise _pull_failed(reference, str(exc)) from exc
            return _inspected(api, reference)

    def load(self, archive: IO[bytes], progress: Progress) -> Image:
        loaded = ""
        with self._connection.asked_to("load an image") as api:
            try:
                for message in api.load_image(archive):
                    line = _follow(message, progress)
                    for words in _LOADED:
                        if line.startswith(words):
                            loaded = line.removeprefix(words).strip()
            except docker.errors.APIError as exc:
                raise _not_an_archive(str(exc.explanation or exc)) from exc
            except _StreamError as exc:
                raise _not_an_archive(str(exc)) from exc
            if not loaded:
                raise _not_an_archive("it names none")
            return _inspected(api, loaded)

    def name(self, digest: str, reference: str) -> None:
        repository, _, tag = reference.rpartition(":")
        with self._connection.asked_to(f"name {digest[:19]} {reference}") as api:
            api.tag(digest, repository, tag)

    def remove(self, digest: str) -> None:
        """Take the names away one by one: the image goes with the last, unless a container has it."""
        with self._connection.asked_to(f"remove the image {digest[:19]}") as api:
            users = api.containers(all=True, filters={"ancestor": digest})
            if users:
                refuse_in_use(digest, ", ".join(one["Names"][0].lstrip("/") for one in users[:3]))
            try:
                names = _names(api.inspect_image(digest)["RepoTags"])
                for name in names or (digest,):
                    api.remove_image(name)
            except docker.errors.ImageNotFound as exc:
                raise image_not_found(digest) from exc
            except docker.errors.APIError as exc:
                if exc.status_code != 409:
                    raise
                refuse_in_use(digest, one_line(str(exc.explanation)))

    def package_files(self, digest: str, is_wanted: Callable[[str], bool]) -> PackageFiles:
        with self._connection.asked_to(f"read the image {digest[:19]}") as api:
            try:
                container = api.create_container(digest, command=["none"], network_disabled=True)["Id"]
            except docker.errors.ImageNotFound as exc:
                raise image_not_found(digest) from exc
            try:
                stream = io.BufferedReader(_Chunks(api.export(container)), 1 << 20)
                with tarfile.open(fileobj=stream, mode="r|") as tar:
                    for member in tar:
                        if member.isfile() and member.size <= _LARGEST_FILE and is_wanted(member.name):
                            content = tar.extractfile(member)
                            yield member.name, content.read() if content else b""
            except tarfile.TarError as exc:
                raise EngineError("engine.failed", f"the engine could not read the image: {exc}", "try again") from exc
            finally:
                api.remove_container(container, v=True, force=True)


class _Chunks(io.RawIOBase):
    """Makes a file of what comes in pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        super().__init__()
        self._pieces: Iterator[bytes] = iter(pieces)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


class _StreamError(Exception):
    """The engine said in the middle of its answer that it failed."""


def _follow(message: dict[str, Any], progress: Progress) -> str:
    """Show one message of a stream; return its line."""
    if "error" in message:
        raise _StreamError(str(message["error"]))
    line = str(message.get("stream") or message.get("status") or "").strip()
    if line and not message.get("progressDetail"):
        progress(one_line(f"{message['id']}: {line}" if message.get("id") else line))
    return line


def _names(tags: list[str] | None) -> tuple[str, ...]:
    return tuple(sorted(tag for tag in tags or [] if tag != "<none>:<none>"))


def _split(reference: str) -> tuple[str, str]:
    """Split into what docker-py calls repository and tag; a digest is a tag to it."""
    repository, at, digest = reference.partition("@")
    if at:
        return repository, digest
    head, colon, tag = reference.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (reference, "latest")


def _inspected(api: docker.APIClient, reference: str) -> Image:
    try:
        found = api.inspect_image(reference)
    except docker.errors.ImageNotFound as exc:
        raise image_not_found(reference) from exc
    return Image(reference, found["Id"], dict(found["Config"].get("Labels") or {}))


def _pull_failed(reference: str, why: str) -> EngineError:
    hint = "is the name right, and may this host reach the registry? 'docker login' gives it a password"
    return EngineError("image.pull-failed", f"cannot pull {one_line(reference)}: {one_line(why)}", hint)


def _not_an_archive(why: str) -> EngineError:
    return import_failed(one_line(why), "'docker save IMAGE' writes one that can be imported")
