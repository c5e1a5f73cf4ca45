"""What exists is documented: flags, commands, exit codes, metrics, choices. A missing word fails here."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
from devgw_runner.cli import COMMANDS, USAGE
from devgw_runner.config import TrainConfig
from devgw_runner.config_sources import flag_of
from devgw_runner.errors import every_exit_code, own_exit_codes
from devgw_runner.metrics.peak import PEAKS
from devgw_runner.metrics.prometheus import GAUGES, PREFIX, VAL_LOSS
from devgw_runner.plan.choice import Plan
from devgw_runner.wrap.sidecar import GAUGES as GPU_GAUGES

DOCS = Path(__file__).parents[3] / "docs"
CONTRACT = (DOCS / "reference" / "runner-contract.md").read_text(encoding="utf-8")
REFERENCE = (DOCS / "reference" / "runner.md").read_text(encoding="utf-8")
PEAK_PAGE = (DOCS / "reference" / "peaks.md").read_text(encoding="utf-8")
SOURCE = Path(__file__).parents[1] / "src" / "devgw_runner"


@pytest.mark.parametrize("name", list(TrainConfig.model_fields))
def test_every_setting_is_in_the_reference_with_its_default_and_meaning(name):
    field = TrainConfig.model_fields[name]
    row = next(line for line in REFERENCE.splitlines() if line.startswith(f"| `{flag_of(name)}`"))
    assert str(field.description) in row
    assert field.default is None or f"`{field.default}`" in row


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_is_in_the_contract_and_in_the_usage(command):
    assert f"devgw-run {command}" in CONTRACT
    assert re.search(rf"^  {command} ", USAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("option", sorted(set(re.findall(r"--[a-z0-9-]+", USAGE)) - {"--batch-size", "--help"}))
def test_every_option_of_the_command_is_in_the_reference(option):
    assert re.search(rf"`{option}\b", REFERENCE)


@pytest.mark.parametrize(("code", "name"), sorted(every_exit_code().items()))
def test_every_exit_code_is_in_the_contract(code, name):
    assert f"| {code} | {name} |" in CONTRACT


def test_no_two_failures_share_an_exit_code_or_a_name():
    codes, names = zip(*own_exit_codes(), strict=True)
    assert len(codes) == len(set(codes)) == 15
    assert len(set(names)) == len(codes)
    assert not set(codes) & {0, 1, 125}
    assert max(codes) < 128  # from there on a code names a signal


def test_the_contract_gives_each_exit_code_one_meaning():
    rows = re.findall(r"^\| (\d+) \| [a-z-]+ \|", CONTRACT, flags=re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert {int(row) for row in rows} == set(every_exit_code())


@pytest.mark.parametrize(
    "metric", [*(PREFIX + name for name in [*GAUGES, VAL_LOSS]), *map("devgw_gpu_".__add__, GPU_GAUGES)]
)
def test_every_metric_is_in_the_contract(metric):
    assert f"`{metric}`" in CONTRACT


def test_every_choice_of_the_plan_is_explained():
    for field in dataclasses.fields(Plan):
        if field.name not in {"optimizer", "prefetch", "resume"}:
            assert re.search(rf"^\| [^|]*\b{field.name}\b", REFERENCE, flags=re.MULTILINE), field.name


@pytest.mark.parametrize("name", list(PEAKS))
def test_every_peak_is_documented_with_its_sheet(name):
    row = next(line for line in PEAK_PAGE.splitlines() if line.startswith(f"| {name} |"))
    _, _, multiprocessors, half, tf32, fp32, fp8, sheet, _ = (cell.strip() for cell in row.split("|"))
    peak = PEAKS[name]
    assert float(multiprocessors) == peak.multiprocessors
    assert [float(cell or 0) for cell in (half, tf32, fp32, fp8)] == [peak.half, peak.tf32, peak.fp32, peak.fp8]
    assert sheet


def test_the_tutorial_notebook_is_committed_without_outputs(examples):
    cells = json.loads((examples / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") for cell in cells)


def test_no_suppression_is_without_a_reason():
    """House rule: every noqa and type-ignore carries a code and says why."""
    for path in SOURCE.rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if "# noqa" in line:
                assert re.search(r"# noqa: [A-Z0-9, ]+ - \w", line), f"{path.name}:{number}"
            if "# type: ignore" in line:
                assert re.search(r"# type: ignore\[[a-z-]+\]  # \w", line), f"{path.name}:{number}"
