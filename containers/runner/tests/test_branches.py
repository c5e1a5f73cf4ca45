"""A run that starts anew or from a named checkpoint is a branch of its own; one run at a time writes a directory."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import threading

import pytest
import tiny
import torch
from devgw_runner import run
from devgw_runner.checkpoint import durable, lineage, store
from devgw_runner.checkpoint.lock import only_writer
from devgw_runner.checkpoint.resume import find_start, newest_of_run
from devgw_runner.cli import main
from devgw_runner.errors import CheckpointError, InUseError
from devgw_runner.parallel.world import World

from bits import all_tensors

FLAGS = ["--run-name", "tiny", "--checkpoint-keep", "2"]


def train(steps: int, *flags: str) -> int:
    return run(tiny.Tiny, [*FLAGS, "--steps", str(steps), *flags])


def manifests(paths) -> dict[str, store.Manifest]:
    return {path.name: store.read_manifest(path) for path in store.list_checkpoints(paths.checkpoints)}


def test_a_plain_start_after_a_new_beginning_continues_the_new_run(paths, capsys):
    """Not the old run's later step, which used to win because its number is larger."""
    assert train(20) == 0
    assert train(6, "--resume", "off") == 0
    capsys.readouterr()
    assert train(8) == 0
    out = capsys.readouterr().out
    assert "resumed from step-00000006" in out
    assert "step-00000020 is of another branch; --resume" in out
    assert paths.steps() == [6, 8, 20]


def test_pruning_stays_within_the_branch(paths):
    """Whatever was reported saved by the earlier run stays; the new one keeps its own newest two."""
    assert train(12, "--checkpoint-every", "4") == 0
    assert paths.steps() == [8, 12]
    assert train(8, "--checkpoint-every", "2", "--resume", "off") == 0
    assert [name.split(".")[0] for name in sorted(manifests(paths))] == [
        "step-00000006",
        "step-00000008",
        "step-00000008",
        "step-00000012",
    ]


def test_a_step_that_another_branch_has_too_is_saved_beside_it(paths):
    assert train(6) == 0
    before = {path: path.read_bytes() for path in (paths.checkpoints / "step-00000006").iterdir()}
    assert train(6, "--resume", "off", "--learning-rate", "0.5") == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    names = sorted(manifests(paths))
    own = lineage.read_current(paths.checkpoints)
    assert names == ["step-00000006", f"step-00000006.{own.name}"]
    assert newest_of_run(paths.checkpoints).name == names[1]


def test_each_checkpoint_carries_its_run_and_where_it_came_from(paths):
    assert train(4, "--checkpoint-every", "2") == 0
    first = manifests(paths)["step-00000004"]
    assert train(6, "--resume", str(paths.checkpoints / "step-00000002")) == 0
    branched = manifests(paths)["step-00000006"]
    assert branched.run == first.run
    assert branched.branch != first.branch
    assert branched.lineage == ((first.branch, 2),)
    assert train(8, "--resume", "off") == 0
    anew = manifests(paths)["step-00000008"]
    assert anew.run != first.run
    assert anew.lineage == ()
    assert branched.position["step"] == 6


def test_a_branch_killed_before_its_first_checkpoint_begins_again_where_it_began(paths, capsys):
    """The branch is recorded when it begins, so that a restart does not fall back to the old line."""
    assert train(4, "--checkpoint-every", "2") == 0
    origin = paths.checkpoints / "step-00000002"
    branch = find_start(str(origin), paths.checkpoints).branch
    lineage.record(paths.checkpoints, branch)
    capsys.readouterr()
    assert train(3) == 0
    assert "resumed from step-00000002" in capsys.readouterr().out
    assert manifests(paths)["step-00000003"].lineage[-1][1] == 2


def test_checkpoints_without_a_record_are_continued(paths, capsys):
    """Those of an older runner, or of a directory whose record was lost."""
    assert train(4) == 0
    (paths.checkpoints / lineage.RECORD).unlink()
    assert train(6) == 0
    assert "resumed from step-00000004" in capsys.readouterr().out
    assert len({manifest.branch for manifest in manifests(paths).values()}) == 1


def test_a_damaged_record_is_told_with_both_ways_out(paths, capsys):
    assert train(4) == 0
    (paths.checkpoints / lineage.RECORD).write_text("{")
    assert train(6) == 12
    assert "branches.json is damaged" in capsys.readouterr().err
    assert train(6, "--resume", str(paths.checkpoints / "step-00000004")) == 0
    assert train(8) == 0


def test_checkpoints_of_several_branches_say_whose_they_are(paths, capsys):
    assert train(4) == 0
    assert train(2, "--resume", "off") == 0
    capsys.readouterr()
    assert main(["checkpoints", str(paths.checkpoints)]) == 0
    assert capsys.readouterr().out.count("branch ") == 2
    assert main(["checkpoints", str(paths.checkpoints), "-o", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["checkpoints"]
    assert {row["branch"] for row in rows} == {m.branch for m in manifests(paths).values()}


def test_explain_begins_no_branch(paths, capsys):
    assert train(4) == 0
    before = (paths.checkpoints / lineage.RECORD).read_bytes()
    assert train(6, "--resume", "off", "--explain") == 0
    assert (paths.checkpoints / lineage.RECORD).read_bytes() == before


def test_a_second_run_in_the_same_directory_is_refused(devgw_run, paths, poll, capsys, tiny_script):
    """They used to delete each other's checkpoints. Killed, the first one leaves the directory free at once."""
    first = devgw_run(tiny_script, "--steps", "1000000", "--workers", "2", "--checkpoint-every", "50")
    poll(lambda: bool(paths.steps()), "the first run to save")
    assert run(tiny.Tiny, ["--run-name", "tiny", "--steps", "4"]) == 21
    lines = capsys.readouterr().err.strip().splitlines()
    assert f"in use by another run: process {first.pid} on " in lines[-2]
    assert lines[-1].startswith("devgw-run: hint: ")
    first.send_signal(signal.SIGKILL)
    first.wait(timeout=60)
    newest = paths.steps()[-1]
    assert run(tiny.Tiny, ["--run-name", "tiny", "--steps", str(newest + 2)]) == 0
    assert f"resumed from step-{newest:08d}" in capsys.readouterr().out


def test_a_second_run_in_the_same_process_is_refused(tmp_path):
    """A notebook's thread; the kernel's lock would not see it."""
    refused = []

    def second():
        with pytest.raises(InUseError) as caught, only_writer(tmp_path, World()):
            pass
        refused.append(caught.value.message)

    with only_writer(tmp_path, World()):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert refused == [f"{tmp_path} is in use by another run in this process"]
    with only_writer(tmp_path, World()):
        pass


def test_explain_needs_no_lock(paths, capsys):
    paths.checkpoints.mkdir(parents=True)
    with only_writer(paths.checkpoints, World()):
        assert train(4, "--explain") == 0


def test_a_step_saved_again_never_loses_the_sealed_copy(tmp_path, monkeypatch):
    """Killed at any call that changes names, one whole copy is there after the next start's sweep."""
    calls = ("rename", "replace", "rmdir", "unlink")

    class Killed(BaseException):
        pass

    for exchange in (True, False):
        if not exchange:
            monkeypatch.setattr(durable, "_exchange", lambda one, other: False)
        for call in calls:
            root = tmp_path / f"{call}-{exchange}"
            for copy in (1, 2):
                temporary = store.temporary_directory(root, 5)
                temporary.mkdir(parents=True)
                (temporary / "w.bin").write_bytes(bytes([copy]) * 100)
                with monkeypatch.context() as patch:
                    if copy == 2:
                        patch.setattr(os, call, lambda *a, **k: (_ for _ in ()).throw(Killed))
                    with contextlib.suppress(Killed):
                        store.seal(temporary, store.step_directory(root, 5), store.Manifest(5, {}, {}, 1, "x"))
            store.sweep_unfinished(root)
            assert [path.name for path in root.iterdir()] == ["step-00000005"]
            store.verify(root / "step-00000005")


def test_a_checkpoint_of_the_first_format_is_read(paths, capsys):
    """What an older runner saved stays usable: its manifest has neither run nor branch."""
    assert train(6, "--checkpoint-every", "4", "--deterministic") == 0
    shutil.move(paths.checkpoints / "step-00000006", paths.checkpoints.parent / "whole")
    checkpoint = paths.checkpoints / "step-00000004"
    manifest = json.loads((checkpoint / store.MANIFEST).read_text())
    for name in ("made", "run", "branch", "lineage", "position"):
        del manifest[name]
    trainer = checkpoint / "trainer-0.pt"
    saved = torch.load(trainer, weights_only=True)
    new = saved.pop("optimizer")
    for name in ("layouts", "model", "buffers"):
        del saved[name]
    torch.save(saved | {"param_groups": new["param_groups"], "optimizer_values": {}}, trainer)
    size, digest = trainer.stat().st_size, hashlib.sha256(trainer.read_bytes()).hexdigest()
    manifest["files"]["trainer-0.pt"] = [digest, size]
    (checkpoint / store.MANIFEST).write_text(json.dumps(manifest | {"version": 1}))
    (paths.checkpoints / lineage.RECORD).unlink()
    assert train(6, "--deterministic") == 0
    assert "resumed from step-00000004" in capsys.readouterr().out
    assert {m.branch for m in manifests(paths).values()} == {""}
    whole = all_tensors(paths.checkpoints.parent / "whole")
    for name, value in all_tensors(paths.checkpoints / "step-00000006").items():
        assert torch.equal(value, whole[name]), name
    (checkpoint / store.MANIFEST).write_text(json.dumps(manifest | {"version": 3}))
    with pytest.raises(CheckpointError, match="its format is version 3, this runner reads 1 and 2"):
        find_start(str(checkpoint), paths.checkpoints)
