"""Use that happened is counted: a GPU that computes is seen to, while it does."""

import pytest

from tests.support.gateway_process import GatewayProcess, poll

pytestmark = pytest.mark.gpu


def test_computing_is_measured_and_counted(gateway: GatewayProcess, leased: str) -> None:
    """Ten seconds of matrix products by alice, looked at every second; a slice tells no load (NVML)."""
    code = (
        "import time, torch; a = torch.ones(4096, 4096, device='cuda'); end = time.time() + 10\n"
        "while time.time() < end: a = (a @ a).clamp(0, 1); torch.cuda.synchronize()"
    )
    done = gateway.ssh("alice", "python", "-", stdin=code.encode())
    assert done.returncode == 0, done.stderr

    def counted() -> bool:
        (line,) = gateway.devgw_json("usage", "--since", "1h", "--by", "gpu")["usage"]
        assert line["key"] == leased
        return bool(line["memory_peak_bytes"]) if leased.startswith("MIG-") else bool(line["used_gpu_hours"])

    poll(counted, "a sample with use in it")
