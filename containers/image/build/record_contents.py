"""Print what an image really holds, as JSON: versions of Python, torch, CUDA and of every installed distribution.

Runs inside the build; `devgw image build` turns the main ones into labels.
"""

import json
import platform
from importlib import metadata
from pathlib import Path


def read_torch() -> dict[str, str | None]:
    """Versions of torch and of what it was built for; empty when the image has no torch."""
    try:
        import torch
    except ImportError:
        return {}
    cudnn = torch.backends.cudnn.version() if torch.version.cuda else None
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "rocm": getattr(torch.version, "hip", None),
        "cudnn": str(cudnn) if cudnn is not None else None,
    }


def read_distribution() -> str:
    """`debian 12`, `ubuntu 24.04`: from os-release(5)."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    return f"{values.get('ID', 'unknown')} {values.get('VERSION_ID', '')}".replace('"', "").strip()


def list_packages() -> dict[str, str]:
    """Version of every installed distribution by name."""
    found = {distribution.name: distribution.version for distribution in metadata.distributions()}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


if __name__ == "__main__":
    contents = {
        "version": 1,
        "distribution": read_distribution(),
        "python": platform.python_version(),
        **read_torch(),
        "packages": list_packages(),
    }
    print(json.dumps(contents, indent=1))
