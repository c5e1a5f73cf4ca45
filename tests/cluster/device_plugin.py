"""Offers made-up GPUs to a kubelet: `python device_plugin.py DIRECTORY UUID…`; DIRECTORY is the kubelet's, for plugins.

Runs on a Python with grpcio-tools (`programs.py` makes it), not on the project's.
"""

import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE))
_MESSAGES, _SERVICES = grpc.protos_and_services("device_plugin.proto")
_RESOURCE = "nvidia.com/gpu"
_SOCKET = "made-up-gpus.sock"


class Gpus:
    """All healthy, each known by its UUID, which a container finds in the variable that NVIDIA's runtime reads."""

    def __init__(self, uuids: tuple[str, ...]) -> None:
        self._uuids = uuids
        self._ends = threading.Event()

    def GetDevicePluginOptions(self, _request: Any, _context: Any) -> Any:  # noqa: N802 - the protocol's name
        return _MESSAGES.DevicePluginOptions()

    def ListAndWatch(self, _request: Any, _context: Any) -> Iterator[Any]:  # noqa: N802
        devices = [_MESSAGES.Device(ID=uuid, health="Healthy") for uuid in self._uuids]
        yield _MESSAGES.ListAndWatchResponse(devices=devices)
        self._ends.wait()

    def Allocate(self, request: Any, _context: Any) -> Any:  # noqa: N802
        return _MESSAGES.AllocateResponse(
            container_responses=[
                _MESSAGES.ContainerAllocateResponse(envs={"NVIDIA_VISIBLE_DEVICES": ",".join(one.devicesIDs)})
                for one in request.container_requests
            ]
        )


def _register(directory: str) -> None:
    with grpc.insecure_channel(f"unix://{directory}/kubelet.sock") as channel:
        request = _MESSAGES.RegisterRequest(version="v1beta1", endpoint=_SOCKET, resource_name=_RESOURCE)
        _SERVICES.RegistrationStub(channel).Register(request, timeout=10)


def main(directory: str, *uuids: str) -> None:
    """Serve; register again whenever the kubelet has begun anew, which makes its socket anew."""
    server = grpc.server(ThreadPoolExecutor(8))
    _SERVICES.add_DevicePluginServicer_to_server(Gpus(uuids), server)
    socket, kubelet = Path(directory, _SOCKET), Path(directory, "kubelet.sock")
    known: int | None = None
    while True:
        made = kubelet.stat().st_ino if kubelet.exists() else None
        if made is not None and (made != known or not socket.exists()):
            socket.unlink(missing_ok=True)
            server.stop(None)
            server = grpc.server(ThreadPoolExecutor(8))
            _SERVICES.add_DevicePluginServicer_to_server(Gpus(uuids), server)
            server.add_insecure_port(f"unix://{socket}")
            server.start()
            try:
                _register(directory)
                known = made
            except grpc.RpcError as exc:
                print(f"device plugin: {exc.code()}", file=sys.stderr)
        time.sleep(0.5)


if __name__ == "__main__":
    main(*sys.argv[1:])
