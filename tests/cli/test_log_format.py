"""`log.format = "json"` through a real shipper: Debian's rsyslog reads the log and hands on its fields."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway_process import GatewayProcess, poll

_RSYSLOG = """
global(workDirectory="{root}")
module(load="imfile")
module(load="mmjsonparse")
template(name="fields" type="string" string="%$!all-json%\\n")
input(type="imfile" file="{root}/server.log" tag="devgw" ruleset="devgw")
ruleset(name="devgw") {{
  action(type="mmjsonparse" cookie="")
  if $parsesuccess == "OK" then action(type="omfile" file="{root}/shipped.jsonl" template="fields")
  else action(type="omfile" file="{root}/refused.log")
}}
"""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    made = GatewayProcess(tmp_path, {"DEVGW_LOG_FORMAT": "json"})
    made.devgw("init")
    yield made
    if made.server is not None:
        made.stop()


def shipped(root: Path) -> list[dict[str, Any]]:
    place = root / "shipped.jsonl"
    return [json.loads(line) for line in place.read_text().splitlines()] if place.exists() else []


def test_rsyslog_hands_on_every_line_by_its_fields(gateway: GatewayProcess) -> None:
    """None of the gateway's lines is anything else than JSON, with several workers too."""
    root = gateway.root
    gateway.variables["DEVGW_SERVER_WORKERS"] = "2"
    gateway.serve()
    (root / "rsyslog.conf").write_text(_RSYSLOG.format(root=root))
    command = ["rsyslogd", "-n", "-f", str(root / "rsyslog.conf"), "-i", str(root / "rsyslog.pid")]
    with (root / "rsyslog.log").open("ab") as log:
        shipper = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        listening = f"listening on port {gateway.port}"
        poll(lambda: [one for one in shipped(root) if one["message"] == listening], "what the gateway said first")
        assert gateway.stop() == 0
        lines = (root / "server.log").read_text().splitlines()
        poll(lambda: len(shipped(root)) == len(lines), "every line")
    finally:
        shipper.terminate()
        shipper.wait(timeout=60)
    assert {one["service.name"] for one in shipped(root)} == {"devgw"}
    assert len({one["process.pid"] for one in shipped(root)}) >= 2
    assert not (root / "refused.log").exists()
