"""A leased GPU, and no other, is inside: seen by nvidia-smi, usable by torch, absent where none was asked for."""

import pytest

from tests.gpu.conftest import uuids_in
from tests.support.gateway_process import GatewayProcess

pytestmark = pytest.mark.gpu


def test_nvidia_smi_inside_shows_exactly_the_leased_uuid(gateway: GatewayProcess, leased: str) -> None:
    listing = gateway.ssh("alice", "nvidia-smi", "-L")
    assert listing.returncode == 0, listing.stderr
    assert uuids_in(listing.stdout.decode()) == [leased]


def test_torch_inside_computes_on_it(gateway: GatewayProcess) -> None:
    """One device, and a product that the CPU agrees with."""
    code = (
        "import torch; a = torch.arange(4096.).reshape(64, 64) / 4096;"
        "same = torch.allclose((a.cuda() @ a.cuda()).cpu(), a @ a, atol=1e-4);"
        "print(torch.cuda.device_count(), same)"
    )
    done = gateway.ssh("alice", "python", "-c", f'"{code}"')
    assert done.stdout.split() == [b"1", b"True"], done.stderr


def test_an_environment_without_a_gpu_sees_none(gateway: GatewayProcess) -> None:
    """Also though CUDA images say NVIDIA_VISIBLE_DEVICES=all."""
    done = gateway.ssh("carol", "sh", "-c", "'ls /dev | grep -c ^nvidia; nvidia-smi -L'")
    assert done.stdout.split()[:1] == [b"0"]
    assert uuids_in(done.stdout.decode()) == []


def test_a_user_cannot_ask_for_more_by_a_variable(gateway: GatewayProcess, leased: str) -> None:
    """What is not injected is not there, whatever the variables say."""
    done = gateway.ssh("alice", "NVIDIA_VISIBLE_DEVICES=all CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 nvidia-smi -L")
    assert uuids_in(done.stdout.decode()) == [leased]
