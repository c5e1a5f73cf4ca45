"""Each failure is one sentence and one fix; nothing needs torch to be importable."""

import json
import subprocess
import sys

import pytest
from devgw_runner.cli import main
from devgw_runner.metrics.state import GpuState
from devgw_runner.preflight.check import Check, State, failed, passed, report_json, warned
from devgw_runner.preflight.doctor import EVERY_CHECK, first_failure, run_checks
from devgw_runner.preflight.gpu import (
    check_driver,
    compare_architecture,
    compare_driver,
    judge_memory,
    judge_rocm,
    torch_build,
)
from devgw_runner.preflight.machine import check_data, check_shm, check_volume
from devgw_runner.resources import Resources

GIB = 2**30


@pytest.mark.parametrize(
    ("driver", "cuda", "state"),
    [
        # the source article's claim: CUDA 12 needs nothing as new as 535.86.05
        ("535.86.05", "12.8", State.OK),
        ("525.60.13", "12.6", State.OK),
        ("520.61.05", "12.6", State.FAILED),
        ("570.26", "13.0", State.FAILED),
        ("580.65.06", "13.0", State.OK),
        ("450.80.02", "11.8", State.OK),
        ("900.1", "14.0", State.WARNING),
    ],
)
def test_the_driver_must_be_as_new_as_the_cuda_that_torch_was_built_for(driver, cuda, state):
    check = compare_driver(driver, cuda)
    assert check.state is state
    assert bool(check.fix) == (state is not State.OK)


@pytest.mark.parametrize(
    ("capability", "built_for", "state"),
    [
        ((9, 0), ["sm_80", "sm_90"], State.OK),
        ((8, 6), ["sm_80"], State.OK),  # same major version
        ((9, 0), ["sm_90a"], State.OK),
        ((8, 0), ["sm_86"], State.FAILED),  # a newer minor version does not run on an older device
        ((12, 0), ["sm_80", "compute_90"], State.OK),  # PTX
        ((6, 1), ["sm_75", "sm_80"], State.FAILED),
    ],
)
def test_the_device_must_be_among_what_torch_carries_code_for(capability, built_for, state):
    check = compare_architecture("NVIDIA X", capability, built_for)
    assert check.state is state
    if state is State.FAILED:
        assert built_for[0] in check.message


def test_an_occupied_gpu_is_a_warning_that_counts_its_users():
    free = judge_memory(GpuState("NVIDIA H200", "GPU-1", 1 * GIB, 139 * GIB))
    busy = judge_memory(GpuState("NVIDIA H200", "GPU-1", 130 * GIB, 139 * GIB, processes=2))
    assert free.state is State.OK
    assert busy.state is State.WARNING
    assert "2 processes" in busy.message


def test_dockers_default_shared_memory_is_too_little():
    check = check_shm(Resources(2, GIB, 64 * 2**20))
    assert check.state is State.WARNING
    assert "--shm-size" in check.fix
    assert check_shm(Resources(2, GIB, 8 * GIB)).state is State.OK


def test_volumes_are_judged_by_writing(tmp_path):
    assert check_volume("logs", tmp_path).state is State.OK
    (tmp_path / "file").write_text("")
    bad = check_volume("logs", tmp_path / "file" / "x")
    assert bad.state is State.FAILED
    assert bad.fix
    assert check_data(tmp_path / "absent").state is State.OK
    (tmp_path / "data").mkdir()
    assert "empty" in check_data(tmp_path / "data").message
    (tmp_path / "data" / "x").write_text("x")
    assert "writable" in check_data(tmp_path / "data").message


def test_a_check_that_breaks_hides_no_other():
    def check_broken() -> Check:
        raise ZeroDivisionError("division by zero")

    checks = run_checks([check_broken, lambda: passed("fine", "all well")])
    assert [check.state for check in checks] == [State.FAILED, State.OK]
    assert "ZeroDivisionError" in checks[0].message
    assert first_failure(checks).name == "broken"


def test_the_report_is_stable_json():
    report = report_json([passed("a", "m"), warned("b", "m", "f"), failed("c", "m", "f")])
    assert report["version"] == 1
    assert report["ok"] is False
    assert report["checks"][1] == {"name": "b", "state": "warning", "message": "m", "fix": "f"}


def test_doctor_prints_every_check_and_its_verdict(capsys):
    code = main(["doctor", "-o", "json"])
    report = json.loads(capsys.readouterr().out)
    assert len(report["checks"]) == len(EVERY_CHECK)
    assert code == (0 if report["ok"] else 17)
    assert all(check["fix"] for check in report["checks"] if check["state"] != "ok")
    main(["doctor"])
    assert len([line for line in capsys.readouterr().out.splitlines() if "fix:" not in line]) == len(EVERY_CHECK)


def test_doctor_works_where_torch_cannot_be_imported(tmp_path):
    """A broken torch is what a doctor is called for."""
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.13: cannot open shared object file')\n")
    done = subprocess.run(
        [sys.executable, "-m", "devgw_runner", "doctor", "-o", "json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)},
        timeout=300,
    )
    report = json.loads(done.stdout)
    first = report["checks"][0]
    assert done.returncode == 17
    assert (first["name"], first["state"]) == ("torch", "failed")
    assert "libcudart.so.13" in first["message"]


@pytest.mark.parametrize(
    ("cuda", "hip", "words"),
    [("12.8", None, "CUDA 12.8"), (None, "6.4.43482", "ROCm, HIP 6.4.43482"), (None, None, "CPU only")],
)
def test_torchs_build_is_named_by_its_own_word(cuda, hip, words):
    assert torch_build(cuda, hip) == words


def test_a_rocm_build_asks_for_amds_driver_and_not_for_nvidias(monkeypatch):
    """Torch's ROCm build calls its devices cuda and has no torch.version.cuda."""
    import torch

    assert judge_rocm("6.4", kernel_driver=True).state is State.OK
    monkeypatch.setattr(torch.version, "hip", "6.4")
    check = check_driver()
    assert "HIP 6.4" in check.message
    assert "NVIDIA" not in check.message
    assert (check.state is State.OK) or "/dev/kfd" in check.fix


def test_the_plan_names_rocm():
    from devgw_runner.plan.facts import DeviceFacts

    from test_plan import plan

    device = DeviceFacts("cuda", "AMD Instinct MI300X", (9, 4), 304, 192 * GIB, hip="6.4", visible=1)
    chosen = plan(device=device)
    assert chosen.device.reason == "AMD Instinct MI300X (ROCm, HIP 6.4)"
    assert chosen.precision.value == "bf16"
