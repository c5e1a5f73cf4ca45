"""A pod that is a directory of this machine, dialled through an ExecServer and, where a test wants, its network."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.config.sections import KubernetesSettings
from gateway.engines.interface import Service
from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.streams import by_network
from gateway.engines.kubernetes.streams.dialing import Streams
from gateway.engines.kubernetes.streams.loss import Loss

_KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "{url}"}}}}]
users: [{{name: test, user: {{token: abc}}}}]
"""


@contextmanager
def cluster_at(url: str, directory: Path) -> Iterator[Cluster]:
    """Yield the connection to an API at a URL."""
    file = directory / "kubeconfig"
    file.write_text(_KUBECONFIG.format(url=url))
    opened = Cluster(KubernetesSettings(kubeconfig=str(file)))
    try:
        yield opened
    finally:
        opened.close()


def listen_in(directory: Path, monkeypatch: pytest.MonkeyPatch, **changes: bytes) -> None:
    """Have listeners look for services in a directory instead of the pod's own, with other words changed too."""
    source = by_network._source().replace(b'"/run/devgw"', repr(str(directory)).encode())
    for before, after in changes.items():
        assert before.encode() in source
        source = source.replace(before.encode(), after)
    monkeypatch.setattr(by_network, "_source", lambda: source)


def _no() -> bool:
    return False


LED = Loss(_no, _no)
"""Of a pod that is there, on a node that answers."""


class Dial:
    """Dials the services of one pod."""

    def __init__(self, cluster: Cluster, streams: Streams) -> None:
        self._cluster = cluster
        self.streams = streams
        self.pod: dict[str, Any] = {"metadata": {"uid": "1"}, "status": {"podIP": "127.0.0.1"}}

    def __call__(
        self, name: Service = "ssh", is_gone: Callable[[], bool] = _no, is_away: Callable[[], bool] = _no
    ) -> socket.socket:
        stream = self._cluster.run(self.streams.dial(self.pod, "/pod", name, Loss(is_gone, is_away)))
        assert not stream.getblocking()
        stream.settimeout(20)
        return stream
