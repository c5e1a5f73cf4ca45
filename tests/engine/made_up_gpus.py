"""Made-up GPUs for the tests: a CDI specification whose devices can be leased and told apart on a machine without one.

Each device node is the null device under an NVIDIA name; each device also sets a variable that names the UUID injected.
"""

import json
import os
import sys
from pathlib import Path

MADE_UP_GPUS = tuple(f"GPU-00000000-0000-4000-8000-{index:012d}" for index in range(4))


def describe_device(index: int, uuid: str) -> dict[str, object]:
    """One CDI device: `/dev/nvidia<index>` and `DEVGW_TEST_GPU_<index>=<uuid>` inside the container."""
    return {
        "name": uuid,
        "containerEdits": {
            "env": [f"DEVGW_TEST_GPU_{index}={uuid}"],
            "deviceNodes": [{"path": f"/dev/nvidia{index}", "hostPath": "/dev/null", "permissions": "rw"}],
        },
    }


def write_cdi_spec(folder: Path, uuids: tuple[str, ...] = MADE_UP_GPUS) -> Path:
    """Write `nvidia.json` for these UUIDs into a CDI folder, by rename: the engine never reads half of it."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = {
        "cdiVersion": "0.5.0",
        "kind": "nvidia.com/gpu",
        "devices": [describe_device(index, uuid) for index, uuid in enumerate(uuids)],
    }
    written = folder / "nvidia.json"
    draft = folder / f".nvidia.json.{os.getpid()}"
    draft.write_text(json.dumps(spec, indent=1), encoding="utf-8")
    draft.rename(written)
    return written


if __name__ == "__main__":
    write_cdi_spec(Path(sys.argv[1]))
