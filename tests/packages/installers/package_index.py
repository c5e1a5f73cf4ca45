"""Where this machine takes Python packages from, as pip is configured here, told to uv and to Pythons of tests."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

_SECONDS = 600


def uv_variables() -> dict[str, str]:
    """Return pip's own configuration in uv's variables; uv chooses among several indexes as pip does."""
    found = _configured()
    words = {
        "UV_DEFAULT_INDEX": found.get("index-url", ""),
        "UV_INDEX": found.get("extra-index-url", ""),
        "UV_FIND_LINKS": ",".join(found.get("find-links", "").split()),
        "SSL_CERT_FILE": found.get("cert", ""),
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_PYTHON_DOWNLOADS": "never",
    }
    return {name: word for name, word in words.items() if word}


@cache
def _configured() -> dict[str, str]:
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True, timeout=60
    )
    pairs = (line.partition("=") for line in listed.stdout.splitlines())
    return {name.rpartition(".")[2]: str(ast.literal_eval(value)) for name, _, value in pairs}


def make_venv(place: Path, *packages: str) -> Path:
    """Make a virtual environment with packages from the index, away from the checkout's own; return its programs."""
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, timeout=_SECONDS)
    command = [str(place / "bin/python"), "-m", "pip", "install", "-q", *packages]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    assert done.returncode == 0, done.stderr
    return place / "bin"
