"""What a pod wrote, without what a kubelet says of itself in the same place."""

from typing import Any, cast

import pytest

from gateway.config.sections import KubernetesSettings
from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.objects import Objects
from gateway.model import EnvironmentRef

GONE = 'rpc error: code = NotFound desc = an error occurred when try to find container "9db5": not found'


class Told:
    """A cluster that answers one text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def text(self, _path: str, **_query: Any) -> str:
        return self._text


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("ready\n", "ready\n"),
        (f"ready\n{GONE}", "ready\n"),
        (GONE, ""),
        ("unable to retrieve container logs for containerd://9db5", ""),
        (f"{GONE}\nready\n", f"{GONE}\nready\n"),  # a program's own line has an end
    ],
)
def test_a_log_that_is_read_while_its_container_goes_is_the_pods_alone(told: str, said: str) -> None:
    objects = Objects(cast("Cluster", Told(told)), KubernetesSettings(), "one")
    assert objects.log_of(EnvironmentRef.parse("alice"), 5) == said
