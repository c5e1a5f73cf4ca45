"""Takes the pictures of the page that the documentation shows: `python -m tests.page_pictures`."""

import tempfile
from pathlib import Path

from tests.e2e.test_page_of_auditors import record
from tests.support.chromium import chromium, opened
from tests.support.page_site import begin

_PLACE = Path(__file__).parents[1] / "docs" / "images"
_PICTURES = {
    "environments": ("alice", "/"),
    "sessions": ("carol", "/sessions/past"),
    "recording": ("carol", "/recordings/aaaaaaaaaa?second=13"),
    "journal": ("carol", "/journal"),
    "people": ("carol", "/people"),
}


_DARK = {"recording"}


def main() -> None:
    """Start a gateway with some users, look at it as they would, and keep small pictures."""
    _PLACE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        gateway = begin(Path(directory))
        try:
            shown = [f"step {step}  loss {2.5 / step:.3f}" for step in range(1, 15)]
            record(gateway.root / "state" / "recordings" / "alice", "aaaaaaaaaa", "$ devgw-run train.py", *shown)
            for name, (user, path) in _PICTURES.items():
                with (
                    chromium() as browser,
                    gateway.tunnel(user, "devgw:80") as port,
                    opened(browser, f"http://localhost:{port}", dark=name in _DARK, width=1000, height=560) as page,
                ):
                    page.goto(path)
                    page.wait_for_load_state("networkidle")
                    page.screenshot(path=_PLACE / f"page-{name}.png")
        finally:
            gateway.stop()


if __name__ == "__main__":
    main()
