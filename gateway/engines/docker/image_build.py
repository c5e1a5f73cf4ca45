"""Building images on a Docker engine with its classic builder (`POST /build`), which every Docker has.

What is built and how it is named is decided in `environments/image_build.py`.
"""

import io
import re
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from docker import APIClient
from docker.errors import APIError, DockerException, ImageNotFound

from gateway.engines.docker.connection import FAULTS
from gateway.engines.image_builder import BuildProgress, Progress
from gateway.errors import EngineError

STEP = re.compile(r"^Step (\d+)/(\d+) : (.*)")
BUILT = re.compile(r"^Successfully built ([0-9a-f]+)")
LAST_LINES = 12
_BUILD_TIMEOUT_SECONDS = 1800  # between two lines of the build's output


@dataclass
class BuildOutput:
    """Follows the stream of a build: which step runs, its last lines, and what came of it."""

    report: Callable[[int, int, str], None]
    step: int = 0
    steps: int = 0
    command: str = ""
    image: str | None = None
    error: str | None = None
    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    def take(self, message: Mapping[str, Any]) -> None:
        """Take one message of the stream."""
        if "error" in message:
            self.error = str(message["error"]).strip()
        if "id" in message.get("aux", {}) or "ID" in message.get("aux", {}):
            self.image = message["aux"].get("ID") or message["aux"].get("id")
        for line in str(message.get("stream") or message.get("status") or "").splitlines():
            self.take_line(line.rstrip())

    def take_line(self, line: str) -> None:
        """Take one line of output."""
        if not line:
            return
        if found := STEP.match(line):
            self.step, self.steps, self.command = int(found[1]), int(found[2]), found[3]
            self.last_lines.clear()
        elif found := BUILT.match(line):
            self.image = self.image or found[1]
        elif not line.startswith(" --->"):
            self.last_lines.append(line)
        self.report(self.step, self.steps, line)

    def raise_failure(self) -> None:
        """Turn what went wrong into an error that ends with the failing step's last lines.

        Raises:
            EngineError: the build did not lead to an image.
        """
        if self.error is None and self.image is not None:
            return
        where = f"step {self.step} of {self.steps} ({self.command[:80]})" if self.step else "the build"
        tail = "".join(f"\n  {line}" for line in self.last_lines)
        hint = (
            "check the base image's name, or import it first and give --base" if self.command.startswith("FROM") else ""
        )
        raise EngineError("image.build-failed", f"{where} failed: {self.error or 'no image was made'}{tail}", hint)


class DockerImageBuilder:
    """Builds on the engine behind an `APIClient`, whose time limit must allow for a long step (None waits for ever)."""

    def __init__(self, client: APIClient, network_mode: str | None = None) -> None:
        self.client = client
        self.network_mode = network_mode

    def has_image(self, tag: str) -> bool:
        """Whether an image of this name is on the engine."""
        try:
            self.client.inspect_image(tag)
        except ImageNotFound:
            return False
        except FAULTS as exc:
            raise translate(exc) from exc
        return True

    def read_labels(self, image: str) -> dict[str, str]:
        """The labels of an image."""
        try:
            return dict(self.client.inspect_image(image)["Config"].get("Labels") or {})
        except FAULTS as exc:
            raise translate(exc) from exc

    def build(
        self,
        context: IO[bytes],
        *,
        tag: str | None,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        progress: Progress,
    ) -> str:
        """Build a tar ball's Dockerfile; returns the image's id.

        Raises:
            EngineError: a step failed, or the engine does not answer.
        """
        output = BuildOutput(lambda step, steps, line: progress(BuildProgress(step, steps, line)))
        try:
            stream: Iterable[dict[str, Any]] = self.client.build(
                fileobj=context,
                custom_context=True,
                tag=tag,
                buildargs=dict(arguments),
                labels=dict(labels),
                network_mode=self.network_mode,
                rm=True,
                forcerm=True,
                decode=True,
            )
            for message in stream:
                output.take(message)
        except FAULTS as exc:
            raise translate(exc) from exc
        output.raise_failure()
        return str(output.image)

    def name_image(self, image: str, tag: str) -> None:
        """Give an image one more name, taking it from the image that had it."""
        repository, _, name = tag.rpartition(":")
        try:
            self.client.tag(image, repository, name)
        except FAULTS as exc:
            raise translate(exc) from exc

    def read_file(self, image: str, path: str) -> bytes:
        """Read one file out of an image through a container that is never started.

        Raises:
            EngineError: the image or the file is not there.
        """
        try:
            container = self.client.create_container(image, network_disabled=True)["Id"]
            try:
                stream, _stat = self.client.get_archive(container, path)
                content = b"".join(stream)
            finally:
                self.client.remove_container(container, v=True)
        except FAULTS as exc:
            raise translate(exc) from exc
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            extracted = tar.extractfile(tar.getmembers()[0])
            if extracted is None:
                raise EngineError("image.file-missing", f"{path} is not a file in {image}")
            return extracted.read()


def translate(problem: Exception) -> EngineError:
    """The engine's or the connection's complaint in one line."""
    if isinstance(problem, APIError):
        return EngineError("engine.refused", f"the Docker engine refused: {problem.explanation or problem}")
    return EngineError(
        "engine.unreachable", f"the Docker engine does not answer: {problem}", "check that it runs: devgw doctor"
    )


def connect_builder(base_url: str) -> DockerImageBuilder:
    """Return a builder on the engine at this address. Raises: EngineError `engine.unreachable`."""
    try:
        return DockerImageBuilder(APIClient(base_url=base_url, version="auto", timeout=_BUILD_TIMEOUT_SECONDS))
    except DockerException as exc:
        hint = "start it, or set engine.docker_url"
        raise EngineError("engine.unreachable", f"no Docker engine answers at {base_url}", hint) from exc
