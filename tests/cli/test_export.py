"""`devgw export`: what is written, and what is said where it cannot be."""

from typing import Any

import pytest
import yaml

from gateway.engines.docker.compose import compose_of
from gateway.engines.docker.facts import Facts
from gateway.engines.docker.injection import Injection
from gateway.engines.docker.spec import container_body
from gateway.model import EnvironmentSpec
from tests.cli.site import Site


def test_an_environment_is_exported_by_digest_and_its_owner_is_told_to_stop_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file names what a start would use now; nothing is made."""

    def compose(spec: EnvironmentSpec) -> dict[str, Any]:
        return compose_of(spec, container_body(spec, "one", Facts((1, 50), Injection("cdi", "test"), "builtin")))

    site.run("devgw init -q")
    site.run("devgw create alice --gpu 1 -q")
    monkeypatch.setattr(site.engine, "compose", compose, raising=False)
    exported = site.run("devgw export alice --compose")
    service = yaml.safe_load(exported.raw)["services"]["alice"]
    assert service["image"] == site.daemon.image("devgw/env:cpu").digest
    assert service["cap_drop"] == ["ALL"]
    assert len(service["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"]) == 1
    assert "devgw stop alice" in exported.stderr


def test_an_export_that_cannot_be_is_said(site: Site) -> None:
    site.run("devgw init -q")
    site.run("devgw create alice -q")
    assert site.run("devgw export alice").exit_code == 2
    refused = site.run("devgw export alice --compose")
    assert (refused.exit_code, "no images that Compose" in refused.stderr) == (1, True)
    assert site.run("devgw export carol --compose").exit_code == 4
