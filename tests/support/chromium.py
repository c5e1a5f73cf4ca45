"""Debian's chromium, driven by playwright: a browser as people have one, with an empty profile of its own."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

_FLAGS = (
    "--no-sandbox",  # as root it has none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
_PATIENCE_MILLISECONDS = 60_000
expect.set_options(timeout=_PATIENCE_MILLISECONDS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser; its profile is made for this start and removed after it."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is missing: tests/setup/install installs it"
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, headless=True, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, base: str = "", *, dark: bool = False, width: int = 1280, height: int = 800, scripts: bool = True
) -> Iterator[Page]:
    """Open a window that knows no cookie yet, as wide and as dark as its user likes, with JavaScript or without."""
    context = browser.new_context(
        base_url=base or None,
        color_scheme="dark" if dark else "light",
        viewport={"width": width, "height": height},
        java_script_enabled=scripts,
        reduced_motion="reduce",
    )
    context.set_default_timeout(_PATIENCE_MILLISECONDS)
    try:
        yield context.new_page()
    finally:
        context.close()


def barriers(page: Page) -> list[str]:
    """Return what axe-core finds that keeps somebody out: the rule, and the elements that break it."""
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['help']}: {[node['html'] for node in one['nodes']]}" for one in found]
