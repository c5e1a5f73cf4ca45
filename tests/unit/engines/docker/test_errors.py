"""A daemon's words in ours."""

import docker.errors
import pytest
import requests

from gateway.engines.docker.errors import one_line, translate


class Response:
    """As much of a reply as the SDK's errors look at."""

    status_code = 500
    url = "u"
    reason = "r"


def said(message: str) -> docker.errors.APIError:
    return docker.errors.APIError("x", response=Response(), explanation=message)


@pytest.mark.parametrize(
    ("exc", "code", "words"),
    [
        (said("write /x: no space left on device"), "engine.no-space", "disk is full"),
        (said("all predefined address pools have been fully subnetted"), "engine.no-network", "address range"),
        (said("could not find free subnet from subnet pools"), "engine.no-network", "address range"),
        (said("CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=GPU-1"), "gpu.injection", "GPU-1"),
        (said('could not select device driver "nvidia" with capabilities: [[gpu]]'), "gpu.injection", "device driver"),
        (said("runc: nvidia-container-cli: device error: GPU-1: unknown device"), "gpu.injection", "unknown device"),
        (said('invalid mount config for type "bind": bind source path does not exist: /d'), "mount.missing", "/d"),
        (said("anything else"), "engine.failed", "could not start alice: anything else"),
        (docker.errors.DockerException("odd"), "engine.failed", "odd"),
        (requests.ConnectionError("Connection refused"), "engine.unreachable", "unix:///d.sock does not answer"),
        (requests.ConnectionError("PermissionError(13, 'Permission denied')"), "engine.unreachable", "let us in"),
        (requests.ReadTimeout("Read timed out"), "engine.unreachable", "in time"),
    ],
)
def test_an_error_is_translated(exc: Exception, code: str, words: str) -> None:
    error = translate(exc, "unix:///d.sock", "start alice")
    assert error.code == code
    assert words in error.message


def test_the_failed_handshake_of_a_new_client_is_unreachable() -> None:
    """The SDK wraps it in an exception of its own."""
    wrapped = docker.errors.DockerException("Error while fetching server API version")
    wrapped.__cause__ = requests.ConnectionError("refused")
    assert translate(wrapped, "unix:///d.sock", "x").code == "engine.unreachable"


def test_a_daemons_text_cannot_break_a_line_or_move_the_cursor() -> None:
    """It may repeat what a container wrote (invariant 9)."""
    assert one_line("a\nb\x1b[2J\tc \u202e d") == "a b [2J c d"
    assert len(one_line("x" * 1000)) == 300
