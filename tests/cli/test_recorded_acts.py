"""What a command writes into the journal, for acts that need no environment."""

import pytest

from gateway.app.composition import App
from tests.cli.site import Site


@pytest.mark.emits("image.built")
def test_an_image_that_is_built_is_journaled_and_one_that_is_there_is_not(site: Site) -> None:
    for _ in range(2):
        assert site.run("devgw image build --base debian:12-slim -q").exit_code == 0
    built = site.run("devgw audit log --action image.built -o json").stdout
    assert built.count('"image.built"') == 1


@pytest.mark.emits("journal.signed-anew")
def test_a_head_that_is_signed_anew_is_journaled(site: Site) -> None:
    site.run("devgw init -q")
    assert site.run("devgw audit head --anew --yes").exit_code == 0


@pytest.mark.emits("journal.head-failed")
def test_a_head_that_cannot_be_handed_on_is_journaled(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway's last head, here; it goes on all the same."""
    site.run("devgw init -q")
    monkeypatch.setenv("DEVGW_AUDIT_HEAD_COMMAND", "false")
    site.happens("the gateway starts and stops")


@pytest.mark.emits("source.unbanned")
def test_a_ban_that_is_lifted_is_journaled(site: Site) -> None:
    site.run("devgw init -q")
    site.happens("30 connections as mallory from 192.0.2.7 prove no key")
    assert site.run("devgw bans lift 192.0.2.7 --reason mistaken").exit_code == 0


@pytest.mark.emits("host-key.announced", "host-key.rotated", "host-key.failed")
def test_a_host_key_that_is_rotated_is_journaled_and_one_that_cannot_be(site: Site) -> None:
    """A folder stands where the key in use would be kept, the second time."""
    site.run("devgw init -q")
    for step in ("", " --finish", ""):
        assert site.run(f"devgw host-key rotate{step}").exit_code == 0
    kept = App().authority.host_keys[0].with_suffix(".previous")
    kept.unlink()
    (kept / "in the way").mkdir(parents=True)
    assert site.run("devgw host-key rotate --finish").exit_code == 1
