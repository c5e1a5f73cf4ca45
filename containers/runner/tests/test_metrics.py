"""What a run shows: records, files, Prometheus, progress."""

import csv
import io
import json
import os
import re
import socket
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import tiny
import torch
from devgw_runner import run
from devgw_runner.metrics.gpu import NvmlUnavailableError, read_gpus
from devgw_runner.metrics.progress import Progress, format_seconds
from devgw_runner.metrics.prometheus import GAUGES, PREFIX, VAL_LOSS, PrometheusSink
from devgw_runner.metrics.record import Meter, Record
from devgw_runner.metrics.sinks import JsonlSink
from devgw_runner.metrics.state import GpuState
from devgw_runner.wrap.sidecar import write_gpu_state

QUICK = ["--run-name", "tiny", "--steps", "8", "--log-every", "2"]


def record(step: int = 5, **changes) -> Record:
    values = {
        "kind": "train",
        "step": step,
        "epoch": 0,
        "loss": 0.5,
        "step_seconds": 0.1,
        "samples_per_second": 80.0,
    }
    return Record(**{**values, **changes})


def test_a_run_writes_jsonl_csv_tensorboard_prometheus_plan_and_trace(paths):
    extras = ["--csv", "--tensorboard", "--prometheus", "textfile", "--profile", "2", "--peak-tflops", "0.1"]
    assert run(tiny.Tiny, [*QUICK, *extras]) == 0
    train = paths.records()
    assert [row["step"] for row in train] == [2, 4, 6, 8]
    assert all(0 < row["mfu"] < 1 for row in train)
    assert all(row["metric_accuracy"] <= 1 and row["memory_bytes"] > 2**20 for row in train)
    rows = list(csv.DictReader((paths.logs / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8, 8]
    prom = (paths.logs / "metrics.prom").read_text()
    for name in {*GAUGES, VAL_LOSS}:
        assert f'{PREFIX}{name}{{run="tiny"}}' in prom
    assert list((paths.logs / "tensorboard").glob("events*"))
    assert json.loads((paths.logs / "plan.json").read_text())["choices"]["precision"]["reason"]
    assert "traceEvents" in json.loads((paths.logs / "trace.json").read_text())


def test_a_resumed_run_appends_to_the_same_csv(paths):
    assert run(tiny.Tiny, [*QUICK, "--csv"]) == 0
    assert run(tiny.Tiny, [*QUICK, "--csv", "--steps", "12"]) == 0
    text = (paths.logs / "metrics.csv").read_text().splitlines()
    assert sum(line.startswith("time,") for line in text) == 1


def test_a_line_that_a_full_disk_cut_short_does_not_swallow_the_next(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"ste')
    sink = JsonlSink(path)
    sink.write(record(step=2))
    sink.close()
    assert [line[:7] for line in path.read_text().splitlines()] == ['{"step"', '{"ste', '{"time"']


def test_ages_and_durations_are_never_negative_when_the_clock_is_set_back(paths, monkeypatch):
    real = time.time

    class Backwards(tiny.Tiny):
        def schedule(self, optimizer, cfg, total_steps):
            monkeypatch.setattr(time, "time", lambda: real() - 7200)  # after the writer began to count
            return super().schedule(optimizer, cfg, total_steps)

        def loss(self, model, batch):
            monkeypatch.setattr(time, "time", lambda: real() - 14400)
            return super().loss(model, batch)

    assert run(Backwards, [*QUICK, "--prometheus", "textfile", "--checkpoint-every", "3"]) == 0
    for row in paths.records():
        assert 0 <= row["checkpoint_age_seconds"] < 600
        assert row["step_seconds"] > 0
        assert row["data_wait_seconds"] >= 0
    assert format_seconds(-3) == "0s"


def test_prometheus_is_served_on_loopback_only():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sink = PrometheusSink(str(port), None, "a")  # type: ignore[arg-type]  # no textfile is written
    sink.write(record(loss=0.25))
    body = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    assert 'devgw_train_loss{run="a"} 0.25' in body
    assert sink._server.server_address[0] == "127.0.0.1"
    sink.close()


def test_the_textfile_is_written_once_a_second_and_with_the_last_record_at_the_end(tmp_path):
    textfile = tmp_path / "metrics.prom"
    sink = PrometheusSink("textfile", textfile, "a")
    for loss in (0.75, 0.5, 0.25):
        sink.write(record(loss=loss))
    assert 'devgw_train_loss{run="a"} 0.75' in textfile.read_text()
    sink.close()
    assert 'devgw_train_loss{run="a"} 0.25' in textfile.read_text()


def test_a_port_that_is_taken_is_a_usage_error(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run(tiny.Tiny, [*QUICK, "--prometheus", str(taken.getsockname()[1])]) == 2
    assert "cannot serve metrics on 127.0.0.1" in capsys.readouterr().err


def test_progress_prints_plain_lines_where_there_is_no_terminal():
    out = io.StringIO()
    progress = Progress(100, 3600, lambda: None, out)
    for step in (10, 20, 100):
        progress.show(record(step))
    lines = out.getvalue().splitlines()
    assert len(lines) == 2  # the first, and the last although the interval is not over
    assert "\r" not in out.getvalue()
    assert "\x1b" not in out.getvalue()
    assert re.search(r"step 10/100 \(10 %\)  loss 0.5  80 samples/s  eta 9s", lines[0])


def test_progress_redraws_one_line_on_a_terminal():
    reader, writer = os.openpty()
    with os.fdopen(writer, "w") as terminal:
        progress = Progress(100, 10, lambda: None, terminal)
        progress.show(record(10))
        progress.show(record(20))
        progress.say("hello")
        progress.close()
        shown = ""
        while "hello\r\n" not in shown:  # a terminal hands over what it has, line by line
            shown += os.read(reader, 4096).decode()
    os.close(reader)
    assert shown.count("\r\x1b[2K") == 2
    assert shown.endswith("\r\nhello\r\n")


def test_a_lost_reader_is_reported_once_and_not_raised():
    """Without a terminal, a lost connection shows as EPIPE, not as SIGHUP."""
    reader, writer = os.pipe()
    os.close(reader)
    lost = []
    stream = os.fdopen(writer, "w")
    progress = Progress(100, 0.001, lambda: lost.append(1), stream)
    progress.say("one")
    progress.say("two")
    assert lost == [1]
    with pytest.raises(BrokenPipeError):
        stream.close()


@pytest.mark.slow
def test_a_run_whose_reader_is_gone_saves_and_stops_as_after_sighup(devgw_run, tiny_script, paths, poll):
    process = devgw_run(tiny_script, "--steps", "100000000", "--log-every", "1", "--checkpoint-minutes", "0")
    poll(lambda: len(paths.records()) > 2, "training to begin")
    process.stdout.close()
    process.stdout = None
    assert process.wait(timeout=60) == 129
    assert len(paths.steps()) == 1


def test_the_meter_means_over_the_interval_and_starts_anew():
    meter = Meter(torch.device("cpu"))
    for loss in (1.0, 2.0, 6.0):
        meter.add(torch.tensor(loss), {"accuracy": torch.tensor(0.5)}, 4)
    means, step_seconds, rate, _ = meter.take()
    assert means == {"loss": 3.0, "accuracy": 0.5}
    assert step_seconds > 0
    assert rate > 0
    assert meter.steps == 0


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3s"), (75, "1m15s"), (7322, "2h02m")])
def test_durations_read_well(seconds, text):
    assert format_seconds(seconds) == text


def test_gpu_state_leaves_out_what_a_mig_slice_does_not_tell(tmp_path):
    part = GpuState("NVIDIA H200 MIG 1g.18gb", "MIG-1", 2**30, 17 * 2**30)
    write_gpu_state([part], tmp_path)
    line = json.loads((tmp_path / "gpu.jsonl").read_text())
    assert "utilisation_percent" not in line
    assert 'devgw_gpu_memory_used_bytes{uuid="MIG-1"}' in (tmp_path / "gpu.prom").read_text()
    assert "devgw_gpu_power_watts{" not in (tmp_path / "gpu.prom").read_text()


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="says what a machine without a driver answers")
def test_without_a_driver_nvml_says_so():
    with pytest.raises(NvmlUnavailableError):
        read_gpus()


def test_every_host_wait_of_the_loop_is_marked():
    """The promise of loop, step and evaluation: what reads a device value on the host says SYNC on its line."""
    from devgw_runner import evaluation, loop, step

    waits = re.compile(r"\.item\(|float\(own\)|\.synchronize\(|watch\.check\(|meter\.take\(|scaler\.step\(|\.times\(")
    files = [Path(part.__file__) for part in (loop, step, evaluation)]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    found = [line for line in lines if waits.search(line)]
    assert len(found) >= 7
    assert [line for line in found if "SYNC" not in line] == []
    assert sys.modules[loop.__name__] is loop
