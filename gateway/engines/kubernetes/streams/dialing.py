"""Which way a stream into a pod takes: over the pods' network where that leads there, else by exec."""

import socket
from collections.abc import Mapping
from typing import Any

from gateway.engines.interface import Service
from gateway.engines.kubernetes.client import Cluster
from gateway.engines.kubernetes.streams import by_exec
from gateway.engines.kubernetes.streams.by_network import PodNetwork
from gateway.engines.kubernetes.streams.loss import Loss


class Streams:
    """Dials pods of one cluster, on the cluster's loop."""

    def __init__(self, cluster: Cluster, *, by_network: bool) -> None:
        self._cluster = cluster
        self._network = PodNetwork(cluster) if by_network else None

    async def dial(self, pod: Mapping[str, Any], path: str, service: Service, loss: Loss) -> socket.socket:
        """Return a non-blocking stream to a service of a pod, which is cut when it leads nowhere any more.

        Raises:
            EngineError, ApiRefusalError, ApiSilenceError.
        """
        if self._network is not None:
            stream = await self._network.dial(pod, path, service, loss)
            if stream is not None:
                return stream
        return await by_exec.dial(self._cluster, path, service, lambda: loss.is_gone() or loss.is_away())
