"""An unmodified script under `--wrap`: output, signals, exit code, and plain words about the rest."""

import json
import os
import signal
import subprocess
import sys

import pytest
from devgw_runner.errors import UsageError
from devgw_runner.metrics.gpu import choose_visible
from devgw_runner.metrics.state import GpuState
from devgw_runner.wrap.script import NOT_APPLIED, _with_torchrun, run_wrapped


def write(tmp_path, text: str):
    script = tmp_path / "job.py"
    script.write_text(text)
    return script


@pytest.mark.parametrize("code", [0, 3, 41])
def test_the_exit_code_passes_through_and_the_truth_is_told(finished, tmp_path, code):
    script = write(tmp_path, f"import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit({code})\n")
    done = finished("--wrap", "--", sys.executable, script, "--some", "flag")
    assert done.returncode == code
    assert done.stdout == "out\n"
    assert NOT_APPLIED in done.stderr
    assert "err\n" in done.stderr
    logs = tmp_path / "logs" / "job"
    assert (logs / "output.log").read_text().splitlines() in (["out", "err"], ["err", "out"])
    summary = json.loads((logs / "summary.json").read_text())
    assert (summary["exit_code"], summary["note"]) == (code, NOT_APPLIED)
    assert summary["command"][-2:] == ["--some", "flag"]


def test_the_script_finds_caches_and_threads_and_keeps_the_users_values(finished, tmp_path):
    script = write(tmp_path, "import os, json\nprint(json.dumps(dict(os.environ)))\n")
    done = finished("--tf32", "--wrap", "--", sys.executable, script, TRITON_CACHE_DIR="/mine", OMP_NUM_THREADS="7")
    seen = json.loads(done.stdout)
    assert seen["TORCHINDUCTOR_CACHE_DIR"].endswith("/inductor")
    assert (seen["TRITON_CACHE_DIR"], seen["OMP_NUM_THREADS"]) == ("/mine", "7")
    assert int(seen["TORCHINDUCTOR_COMPILE_THREADS"]) <= len(os.sched_getaffinity(0))
    assert seen["TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"] == "1"


def test_signals_reach_the_script(devgw_run, tmp_path, poll):
    script = write(
        tmp_path,
        "import signal, sys, pathlib\n"
        "signal.signal(signal.SIGTERM, lambda *a: sys.exit(9))\n"
        "pathlib.Path('ready').touch()\n"
        "while True: signal.pause()\n",
    )
    process = devgw_run("--wrap", "--", sys.executable, script)
    poll((tmp_path / "ready").exists, "the script to begin")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 9


def test_a_signal_to_the_whole_group_is_heard_once(tmp_path, poll):
    """As sshd sends it when a user presses Ctrl-C without a terminal of their own."""
    script = write(
        tmp_path,
        "import pathlib, signal, time\n"
        "heard = []\n"
        "signal.signal(signal.SIGINT, lambda *a: heard.append(1))\n"
        "pathlib.Path('ready').touch()\n"
        "while not heard: time.sleep(0.05)\n"
        "time.sleep(1)\n"
        "raise SystemExit(len(heard))\n",
    )
    command = [sys.executable, "-m", "devgw_runner", "--wrap", "--", sys.executable, str(script)]
    process = subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.DEVNULL, start_new_session=True)
    poll((tmp_path / "ready").exists, "the script to begin")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=30) == 1


def test_a_script_killed_by_a_signal_is_128_and_that_signal(finished, tmp_path):
    script = write(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert finished("--wrap", "--", sys.executable, script).returncode == 137


def test_a_command_that_cannot_start_is_our_own_failure(finished):
    done = finished("--wrap", "--", "/nowhere/python", "train.py")
    assert done.returncode == 125
    assert "devgw-run: error: cannot start /nowhere/python" in done.stderr


def test_on_a_terminal_the_script_has_a_terminal_too(tmp_path):
    """A progress bar stays alive: isatty is true for the script where it is for the user."""
    script = write(tmp_path, "import sys\nprint(sys.stdout.isatty())\n")
    reader, writer = os.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "devgw_runner", "--wrap", "--", sys.executable, str(script)],
        stdout=writer,
        stderr=subprocess.DEVNULL,
        check=False,
        timeout=300,
    )
    os.close(writer)
    assert done.returncode == 0
    assert os.read(reader, 100) == b"True\r\n"
    os.close(reader)


def test_lines_of_both_streams_stay_whole_in_the_log(finished, tmp_path):
    """An unbuffered script writes a line in parts, and a part without an end is kept all the same."""
    script = write(
        tmp_path,
        "import os\n"
        "for _ in range(200):\n"
        "    os.write(1, b'out')\n"
        "    os.write(2, b'err\\n')\n"
        "    os.write(1, b'\\n')\n"
        "os.write(1, b'no end')\n",
    )
    done = finished("--wrap", "--", sys.executable, script)
    assert done.stdout == "out\n" * 200 + "no end"
    kept = (tmp_path / "logs" / "job" / "output.log").read_text().splitlines()
    assert sorted(kept) == sorted(["out"] * 200 + ["err"] * 200 + ["no end"])


@pytest.mark.slow
def test_several_processes_run_under_torchrun_with_their_exit_code(finished, tmp_path):
    script = write(
        tmp_path,
        "import os, sys, pathlib, time\n"
        "pathlib.Path('rank' + os.environ['RANK']).write_text(os.environ['WORLD_SIZE'])\n"
        # torchrun ends the others when one has failed, so none fails before both are there
        "deadline = time.monotonic() + 60\n"
        "while len(list(pathlib.Path().glob('rank?'))) < 2 and time.monotonic() < deadline: time.sleep(0.01)\n"
        "sys.exit(5)\n",
    )
    assert finished("--nproc", "2", "--wrap", "--", sys.executable, script).returncode == 5
    assert [(tmp_path / f"rank{rank}").read_text() for rank in (0, 1)] == ["2", "2"]


def gpus(count: int) -> list[GpuState]:
    return [GpuState("NVIDIA H200", f"GPU-{number}aa", 1, 2) for number in range(count)]


@pytest.mark.parametrize(
    ("setting", "chosen"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("2", [2]),
        ("3,1", [3, 1]),
        (" 0 , 2 ", [0, 2]),
        ("GPU-1aa", [1]),
        ("GPU-3,GPU-0aa", [3, 0]),
        ("0,9,1", [0]),  # CUDA stops at the first that it does not know
        ("-1", []),
        ("1,1", [1]),
        ("GPU-", []),  # no prefix of one alone
        ("NoDevFiles", []),
    ],
)
def test_visible_devices_are_those_that_cuda_would_show(setting, chosen):
    assert choose_visible(gpus(4), setting) == [gpus(4)[number] for number in chosen]


def test_a_wrapped_script_is_one_process_however_many_gpus_are_visible(monkeypatch, tmp_path, capfd):
    """A script that knows nothing of torchrun would do the same work in each; what would start more is said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("devgw_runner.wrap.script.read_gpus", lambda: gpus(4))
    script = write(tmp_path, "import os\nprint('world', os.environ.get('WORLD_SIZE', 'none'))\n")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        assert run_wrapped([sys.executable, str(script)], processes=None, tf32=False) == 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    out, err = capfd.readouterr()
    assert out == "world none\n"
    assert "one process, although 4 GPUs are visible; 'devgw-run --nproc 4 --wrap -- ...'" in err


def test_only_python_scripts_can_be_multiplied():
    assert _with_torchrun(["make", "train"], 1) == ["make", "train"]
    with pytest.raises(UsageError):
        _with_torchrun(["make", "train"], 2)
