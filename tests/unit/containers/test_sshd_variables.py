"""Which variables an environment's sshd sets itself: never those that a person brings along."""

from pathlib import Path

import pytest
from devgw_environment import sshd
from devgw_environment.contract import Environment


def test_what_a_person_brings_along_is_not_set_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """SetEnv wins over AcceptEnv, so locale and time zone stay out of it; the environment's own stay in."""
    for name in ("LANG", "LC_TIME", "TZ", "COLORTERM"):
        monkeypatch.setenv(name, "of-the-image")
    monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", "GPU-1")
    variables = sshd.session_variables(Environment.from_process())
    assert variables["NVIDIA_VISIBLE_DEVICES"] == "GPU-1"
    assert not {"LANG", "LC_TIME", "TZ", "COLORTERM"} & set(variables)


def test_the_images_sshd_accepts_what_the_gateway_sends() -> None:
    """The gateway decides by policy; a name that this file leaves out would be permitted and never arrive."""
    lines = Path(sshd.SETTINGS).read_text().splitlines()
    assert [line for line in lines if line.startswith("AcceptEnv")] == ["AcceptEnv *"]
