"""The features that a project asks for, beside what its environment has: nothing is installed, what lacks is said.

Features are scripts that install as root while an image is built. Here an administrator builds images, and nobody is
root; but most projects ask for what the image has anyway.
"""

import shutil
import sys
from collections.abc import Callable, Mapping
from typing import Any

from devgw_environment.project.text import shown

ANY_VERSION = {"", "latest", "lts", "stable", "os-provided", "default", "none", "system"}
PROGRAMS: Mapping[str, str] = {
    "anaconda": "conda",
    "aws-cli": "aws",
    "azure-cli": "az",
    "conda": "conda",
    "dotnet": "dotnet",
    "git": "git",
    "git-lfs": "git-lfs",
    "github-cli": "gh",
    "go": "go",
    "java": "java",
    "jupyterlab": "jupyter",
    "kubectl-helm-minikube": "kubectl",
    "miniforge": "conda",
    "nix": "nix",
    "node": "node",
    "oryx": "oryx",
    "php": "php",
    "powershell": "pwsh",
    "python": "python3",
    "ruby": "ruby",
    "rust": "cargo",
    "terraform": "terraform",
    "uv": "uv",
}
"""The program by which a feature shows that it is there, by the last word of its name."""
ALWAYS_THERE = frozenset({"common-utils", "sshd"})
"""`common-utils` makes a user and a shell, `sshd` a way in by SSH: the environment's own, whatever the options."""
NEVER = frozenset({"docker-from-docker", "docker-in-docker", "docker-outside-of-docker", "desktop-lite"})
"""What needs root or a port of its own."""


def short_name(feature: str) -> str:
    """`python` of `ghcr.io/devcontainers/features/python:1`."""
    return feature.rstrip("/").rpartition("/")[2].partition("@")[0].partition(":")[0].lower()


def lacking_features(
    features: Mapping[str, Any], search_path: str, has_gpu: Callable[[], bool]
) -> tuple[list[str], list[str]]:
    """What is said of features that are not as asked for: those that lack, and those of another version."""
    lacking, differing = [], []
    for feature, options in features.items():
        name = short_name(feature)
        program = PROGRAMS.get(name)
        if name in ALWAYS_THERE or (name == "nvidia-cuda" and has_gpu()):
            continue
        if name in NEVER or program is None or shutil.which(program, path=search_path) is None:
            lacking.append(shown(name, 40))
        elif name == "python" and not _is_this_python(_version(options)):
            here = f"{sys.version_info.major}.{sys.version_info.minor}"
            differing.append(f"python {shown(_version(options), 20)} (this is {here})")
    return lacking, differing


def _version(options: Any) -> str:
    """The version asked for: an option, or all there is (`"feature": "3.12"`)."""
    asked = options.get("version", "") if isinstance(options, dict) else options
    return str(asked).strip() if isinstance(asked, str | int | float) and not isinstance(asked, bool) else ""


def _is_this_python(asked: str) -> bool:
    parts = asked.partition("-")[0].split(".")
    here = [str(part) for part in sys.version_info[:3]]
    return asked.lower() in ANY_VERSION or parts == here[: len(parts)]
