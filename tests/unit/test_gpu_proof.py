"""What `make gpu-proof` writes, from made-up reports: the proof itself needs a GPU."""

import subprocess

from tests import gpu_proof
from tests.gpu_proof import BEGIN, END, Card, Outcome

CARD = Card("NVIDIA H200", "580.65.06", "2026-11-26")
JUNIT = """<testsuites><testsuite>
<testcase classname="tests.gpu.test_usage" name="test_hours"/>
<testcase classname="gpu.test_doctor" name="test_fit"><failure message="no driver&#10;at">x</failure></testcase>
<testcase classname="tests.gpu.test_doctor" name="test_left_out"><skipped message="no GPU"/></testcase>
</testsuite></testsuites>"""


def completed(output: str = "", code: int = 0) -> "subprocess.CompletedProcess[str]":
    return subprocess.CompletedProcess([], code, output, "the last line")


def test_a_failed_and_a_skipped_test_are_both_failures_with_their_first_line():
    assert gpu_proof.read_outcomes(JUNIT) == [
        Outcome("test_usage: test_hours", "passed"),
        Outcome("test_doctor: test_fit", "failed", "no driver"),
        Outcome("test_doctor: test_left_out", "failed", "no GPU"),
    ]


def test_tests_that_could_not_even_start_are_a_failure():
    assert gpu_proof.run_tests(["tests/gpu"], lambda _: completed(code=4)) == [
        Outcome("tests/gpu", "failed", "the last line")
    ]


def test_card_and_driver_come_from_nvidia_smi():
    card = gpu_proof.find_card(lambda _: completed("NVIDIA H200, 580.65.06\nNVIDIA H200, 580.65.06\n"))
    assert card is not None
    assert (card.name, card.driver) == ("NVIDIA H200", "580.65.06")
    assert gpu_proof.find_card(lambda _: completed(code=9)) is None


def test_a_host_without_a_gpu_is_told_so_and_no_page_changes(monkeypatch, capsys):
    monkeypatch.setattr(gpu_proof, "find_card", lambda: None)
    before = gpu_proof.PROOF_PAGE.read_text()
    assert gpu_proof.main() == 17
    assert "nvidia-smi shows no GPU" in capsys.readouterr().err
    assert gpu_proof.PROOF_PAGE.read_text() == before


def test_the_section_of_a_page_is_replaced_and_the_rest_stays():
    page = f"# Title\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    assert gpu_proof.replace_section(page, ["new"]) == f"# Title\n\n{BEGIN}\nnew\n{END}\n\nafter\n"
    assert gpu_proof.replace_section("# Title\n", ["new"]) == f"# Title\n\n{BEGIN}\nnew\n{END}\n"


def test_both_pages_have_their_marks():
    for page in (gpu_proof.PROOF_PAGE, gpu_proof.BENCHMARK_PAGE):
        text = page.read_text()
        assert text.index(BEGIN) < text.index(END)


def test_what_was_measured_names_card_driver_date_and_errors():
    report = {
        "torch": "2.13.0",
        "floors": {"resnet50_by_bytes": 1.0},
        "resnet50 batch 8 + bf16": {
            "per_second": 7000.4, "lowest": 6900.0, "highest": 7100.0, "mfu": 0.17, "peak_gib": 3.21,
            "rungs": ["compiled"],
        },
        "resnet50 batch 512 + graphs": {"error": "out of device memory"},
    }  # fmt: skip
    text = "\n".join(gpu_proof.describe_ladder(CARD, report))
    assert "NVIDIA H200, driver 580.65.06, 2026-11-26" in text
    assert "| resnet50 batch 8 + bf16 | 7000 | 6900 to 7100 | 17.0% | 3.2 GiB; compiled |" in text
    assert "| resnet50 batch 512 + graphs | | | | out of device memory |" in text


def test_outcomes_name_card_driver_and_date():
    text = "\n".join(gpu_proof.describe_outcomes("the gateway", CARD, gpu_proof.read_outcomes(JUNIT)))
    assert text.startswith("Proof of the gateway: 1 of 3 passed. NVIDIA H200, driver 580.65.06, 2026-11-26.")
    assert "| test_doctor: test_fit | failed | no driver |" in text
