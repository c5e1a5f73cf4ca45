"""Takes the pictures of every view that the documentation shows: `python -m tests.page_pictures [NAME...]`."""

import json
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image

from gateway.model import EnvironmentRef, GpuUuid
from gateway.store.database import Database
from gateway.store.leases import LeaseTable
from tests.e2e.test_page_of_auditors import record
from tests.engine.made_up_gpus import MADE_UP_GPUS, write_cdi_spec
from tests.support.chromium import chromium, opened
from tests.support.gateway_process import GatewayProcess
from tests.support.page_site import begin, browser, use

_PLACE = Path(__file__).parents[1] / "docs" / "images"
_COLOURS = 128
PICTURES = {
    "environments": ("alice", "/"),
    "runs": ("alice", "/runs"),
    "connect": ("alice", "/connect"),
    "account": ("alice", "/account"),
    "may": ("alice", "/may"),
    "people": ("carol", "/people"),
    "gpus": ("carol", "/gpus"),
    "sessions-now": ("carol", "/sessions"),
    "sessions": ("carol", "/sessions/past"),
    "recordings": ("carol", "/recordings"),
    "recording": ("carol", "/recordings/aaaaaaaaaa?second=13"),
    "journal": ("carol", "/journal"),
    "proof": ("carol", "/journal/proof"),
    "who-can": ("carol", "/who-can?question=page+admin"),
    "review": ("carol", "/review"),
    "policies": ("carol", "/policies"),
    "administration": ("carol", "/administration"),
    "connections": ("carol", "/administration/connections"),
    "gpus-in-use": ("carol", "/administration/gpus"),
}
"""Each with who looks, and where."""
_DARK = {"recording"}


def main(wanted: list[str]) -> None:
    """Start a gateway with some users, look at it as they would, and keep small pictures."""
    _PLACE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        gpus = write_cdi_spec(Path(directory) / "cdi").parent
        gateway = begin(
            Path(directory) / "gw", DEVGW_GPUS_INVENTORY="cdi", DEVGW_GPUS_CDI_SPEC_DIRS=str(gpus)
        )  # what is asked for by no environment is leased to none
        try:
            live(gateway)
            for name in wanted or PICTURES:
                take(gateway, name)
        finally:
            gateway.stop()


def live(gateway: GatewayProcess) -> None:
    """Have a day behind it: a recording, a run, hours of load, leases, an act of an administrator's."""
    shown = [f"step {step}  loss {2.5 / step:.3f}" for step in range(1, 15)]
    record(gateway.root / "state" / "recordings" / "alice", "aaaaaaaaaa", "$ devgw-run train.py", *shown)
    use(gateway, "alice", *[(abs(12 - hour) / 4, (8 - abs(12 - hour) // 3) << 29) for hour in range(24)])
    now = datetime.now(UTC)
    run = gateway.root / "state" / "volumes" / "alice" / "main" / "logs" / "resnet"
    run.mkdir(parents=True)
    steps = [
        {"time": now.timestamp() - 300 + step, "kind": "train", "step": step, "epoch": 1, "loss": 2.5 / step**0.4,
         "checkpoint_age_seconds": 42.0, "samples_per_second": 512.0}
        for step in range(1, 300)
    ]  # fmt: skip
    (run / "metrics.jsonl").write_text("\n".join(json.dumps(step) for step in steps) + "\n")
    leases = LeaseTable(Database(f"sqlite:///{gateway.root / 'state' / 'devgw.db'}"))
    for number, user in enumerate(("alice", "bob", "carol", "alice")):
        ref, begun = EnvironmentRef.parse(user), now - timedelta(hours=20 - 4 * number)
        leases.take(ref, [GpuUuid(MADE_UP_GPUS[number])], begun, None)
        leases.release(ref, begun + timedelta(hours=5 - number))
    with browser(gateway, "carol") as carol:
        carol.post("/people/bob/disable")
        carol.post("/people/bob/enable")
        carol.post("/journal/check")


def take(gateway: GatewayProcess, name: str) -> None:
    """Take one picture, with few colours."""
    user, path = PICTURES[name]
    file = _PLACE / f"page-{name}.png"
    with (
        chromium() as one,
        gateway.tunnel(user, "devgw:80") as port,
        opened(one, f"http://localhost:{port}", dark=name in _DARK, width=1000, height=560) as page,
    ):
        page.goto(path)
        page.wait_for_load_state("networkidle")
        page.screenshot(path=file)
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(_COLOURS).save(file, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
