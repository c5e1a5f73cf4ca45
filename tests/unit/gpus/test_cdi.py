"""CDI specs as `nvidia-ctk cdi generate` writes them, in both of their notations."""

import json
from pathlib import Path

from gateway.gpus.cdi import CdiInventory
from gateway.model import Gpu, GpuUuid

GPU = "GPU-8fc0f1b4-1111-4222-8333-444444444444"
MIG = "MIG-5f0d7d8c-1111-5222-8333-444444444444"


def spec(*names: str, kind: str = "nvidia.com/gpu") -> str:
    return json.dumps({"cdiVersion": "0.5.0", "kind": kind, "devices": [{"name": name} for name in names]})


def test_uuids_of_a_json_spec_are_listed(tmp_path: Path) -> None:
    """Indices and `all` name the same devices once more and are left out."""
    (tmp_path / "nvidia.json").write_text(spec("0", GPU, "0:1", MIG, "all"))
    found = CdiInventory((tmp_path,)).read()
    assert found.gpus == (Gpu(GpuUuid(GPU), "NVIDIA GPU"), Gpu(GpuUuid(MIG), "NVIDIA MIG slice"))
    assert (found.source, found.notes) == ("cdi", ())


def test_a_yaml_spec_is_read(tmp_path: Path) -> None:
    """The toolkit's default."""
    (tmp_path / "nvidia.yaml").write_text(
        "---\ncdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n"
        f'- name: "0"\n- name: {GPU}\n  containerEdits:\n    env: []\n'
    )
    assert [gpu.uuid for gpu in CdiInventory((tmp_path,)).read().gpus] == [GPU]


def test_the_same_gpu_in_two_specs_is_one(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(spec(GPU))
    assert len(CdiInventory((tmp_path, tmp_path)).read().gpus) == 1


def test_other_vendors_devices_are_not_gpus_of_ours(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(spec(GPU, kind="example.com/device"))
    found = CdiInventory((tmp_path,)).read()
    assert found.gpus == ()
    assert "no CDI spec of nvidia.com/gpu" in found.notes[0]


def test_a_spec_by_index_only_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "nvidia.json").write_text(spec("0", "1", "all"))
    found = CdiInventory((tmp_path,)).read()
    assert found.gpus == ()
    assert "--device-name-strategy=uuid" in found.notes[0]


def test_a_damaged_spec_is_a_note_and_the_others_are_read(tmp_path: Path) -> None:
    """A half-written file must not hide the GPUs."""
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.yaml").write_text("a: [")
    (tmp_path / "c.json").write_text("[]")
    (tmp_path / "d.json").write_text('{"kind": "nvidia.com/gpu", "devices": 7}')
    (tmp_path / "e.json").write_bytes(b"\xff\xfe")
    (tmp_path / "z.json").write_text(spec(GPU))
    found = CdiInventory((tmp_path,)).read()
    assert [gpu.uuid for gpu in found.gpus] == [GPU]
    assert len(found.notes) == 5


def test_a_yaml_spec_cannot_run_code(tmp_path: Path) -> None:
    """Only the safe loader's types."""
    (tmp_path / "bad.yaml").write_text("!!python/object/apply:os.system ['true']")
    assert CdiInventory((tmp_path,)).read().gpus == ()


def test_absent_directories_hold_no_gpu(tmp_path: Path) -> None:
    found = CdiInventory((tmp_path / "absent",)).read()
    assert found.gpus == ()
    assert str(tmp_path / "absent") in found.notes[0]
