"""Errors of the docker SDK and of requests in our words: the one door. The original is kept as the cause."""

import errno
import re

import docker.errors
import requests

from gateway.engines.docker.injection import unknown_device
from gateway.errors import ConflictError, DevgwError, EngineError, NotFoundError

_LINE_LENGTH = 300
_GPU_WORDS = re.compile(
    r"CDI device injection failed|unresolvable CDI|could not select device driver|nvidia-container|cdi: ",
    re.IGNORECASE,
)
_CDI_UNKNOWN = re.compile(r"unresolvable CDI devices ([^\s\"]+(?:, [^\s\"]+)*)")
_NO_ADDRESSES = ("available, non-overlapping", "all predefined address pools", "could not find free subnet")
_BIND_MISSING = re.compile(r"bind source path does not exist: (\S+)")


def translate(exc: Exception, base_url: str, doing: str) -> DevgwError:
    """Say in one line what went wrong while the engine was asked to do something, such as `start alice`."""
    if isinstance(exc, docker.errors.APIError):
        return _refusal(exc, doing)
    if isinstance(exc, docker.errors.DockerException) and not isinstance(exc.__cause__, requests.RequestException):
        return EngineError("engine.failed", f"the engine could not {doing}: {one_line(str(exc))}")
    return _unreachable(exc, base_url)


def image_not_found(reference: str) -> NotFoundError:
    """Say that an image is not on this host."""
    return NotFoundError(
        "image.not-found",
        f"there is no image {one_line(reference)} on this host",
        "'devgw image build' makes one, 'devgw image list' shows what is there",
    )


def environment_not_found(name: str) -> NotFoundError:
    """Say that the engine has no such environment."""
    return NotFoundError("environment.not-found", f"the engine has no environment {name}", "'devgw list' shows all")


def environment_exists(name: str) -> ConflictError:
    """Say that the name is taken."""
    return ConflictError(
        "environment.exists", f"the engine already has an environment {name}", f"'devgw delete {name}' removes it"
    )


def is_name_taken(exc: docker.errors.APIError) -> bool:
    """Say whether a container of that name is there already; Podman answers so with 500."""
    return exc.status_code == 409 or "that name is already in use" in str(exc.explanation)


def one_line(text: str) -> str:
    """Make text from the engine fit for one line of output: no control characters, at most 300 characters."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:_LINE_LENGTH]


def _refusal(exc: docker.errors.APIError, doing: str) -> DevgwError:
    reason = one_line(str(exc.explanation or exc))
    if "no space left on device" in reason or f"errno {errno.ENOSPC}" in reason:
        return EngineError(
            "engine.no-space",
            f"the engine could not {doing}: its disk is full",
            "'docker system df' shows what takes the space",
        )
    if any(words in reason for words in _NO_ADDRESSES):
        return EngineError(
            "engine.no-network",
            "the engine has no address range left for another environment's network",
            "widen default-address-pools in its daemon.json (Podman: default_subnet_pools in containers.conf), "
            "or create with egress none",
        )
    if match := _BIND_MISSING.search(reason):
        return EngineError("mount.missing", f"{match[1]} is not there, so it cannot be mounted", "make it first")
    if match := _CDI_UNKNOWN.search(reason):
        return unknown_device(match[1])
    if _GPU_WORDS.search(reason):
        return EngineError(
            "gpu.injection", f"the engine could not inject the GPU: {reason}", "'devgw doctor' says what is missing"
        )
    return EngineError("engine.failed", f"the engine could not {doing}: {reason}", "the engine's own log says more")


def _unreachable(exc: Exception, base_url: str) -> DevgwError:
    text = str(exc)
    if "Permission denied" in text:
        why, hint = "does not let us in", "run as root or join the group 'docker'"
    elif isinstance(exc, requests.Timeout) or "timed out" in text:
        why, hint = "does not answer in time", "is the host overloaded? 'docker info' should answer at once"
    else:
        why, hint = "does not answer", "is it running? 'systemctl status docker'"
    return EngineError("engine.unreachable", f"the container engine at {base_url} {why}", hint)
