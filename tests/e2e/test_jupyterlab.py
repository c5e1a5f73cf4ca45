"""JupyterLab as a person sees it: a browser on a real `ssh -L`, the password, a cell and a plot."""

import re

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.conftest import ServedUsers
from tests.support.chromium import opened
from tests.support.gateway_process import GatewayProcess, poll

pytestmark = [pytest.mark.engine, pytest.mark.timeout(420)]

PLOT = 'import matplotlib.pyplot as plt; plt.plot([1, 4, 9]); plt.title("损失 loss")'


def test_a_person_logs_in_runs_a_cell_and_sees_a_plot(served_users: ServedUsers, browser: Browser) -> None:
    """No question stands in the way, the plot is there, and nothing red under it."""
    with served_users.gateway.tunnel("alice") as port, opened(browser, f"http://localhost:{port}") as page:
        log_in(page, served_users.passwords["alice"])
        page.locator('.jp-LauncherCard[data-category="Notebook"]').first.click()
        cell = page.locator(".jp-Notebook .jp-CodeCell")
        expect(page.get_by_role("button", name="Python 3 (ipykernel) | Idle")).to_be_visible()
        run_in(page, cell.first, "6 * 7")
        expect(cell.first.locator(".jp-OutputArea-executeResult .jp-RenderedText")).to_have_text("42")
        run_in(page, cell.nth(1), PLOT)
        expect(cell.nth(1).locator(".jp-RenderedImage img")).to_be_visible()
        assert page.locator('[data-mime-type="application/vnd.jupyter.stderr"]').all_inner_texts() == []
        assert page.locator(".jp-Dialog").count() == 0
        assert "news" not in " ".join(page.locator(".Toastify__toast").all_inner_texts()).lower()


def test_the_status_bar_shows_the_disk_and_warns(fresh_gateway: GatewayProcess, browser: Browser) -> None:
    """Used of granted; at 80 and at 95 % it is coloured and a notification says what helps, and is quiet afterwards.

    Who has no disk of their own sees nothing there.
    """
    gateway = fresh_gateway
    try:
        password = gateway.create("alice", "--disk", "256MiB")
        other = gateway.create("bob")
        gateway.serve()
        told = gateway.root / "state/environments/alice/main/config/disk.json"
        poll(told.exists, "the gateway's first look at the disk", 90)
        with gateway.tunnel("alice") as port, opened(browser, f"http://localhost:{port}") as page:
            log_in(page, password)
            item = page.locator(".devgw-disk")
            expect(item).to_have_text(re.compile(r"^Disk: [0-9.]+ MiB of 2[0-9.]+ MiB \([0-9]+ %\)$"))
            expect(item).to_have_attribute("data-level", "0")
            for kept_mebibytes, level in ((30, "80"), (6, "95")):
                gateway.ssh(
                    "alice",
                    f"head -c $(( $(df -B1 --output=avail ~ | tail -1) - ({kept_mebibytes} << 20) ))"
                    f" /dev/zero >~/fill{level}",
                )
                expect(item).to_have_attribute("data-level", level)
                expect(page.locator(".Toastify__toast", has_text="your disk is").last).to_be_visible()
            gateway.ssh("alice", "rm ~/fill*")
            expect(item).to_have_attribute("data-level", "0")
        with gateway.tunnel("bob") as port, opened(browser, f"http://localhost:{port}") as page:
            log_in(page, other)
            with page.expect_response(re.compile("/devgw/disk")) as answer:
                pass
            assert answer.value.json() == {}
            expect(page.locator(".devgw-disk")).to_be_hidden()
    finally:
        for user in ("alice", "bob"):
            gateway.devgw("delete", user, "--force", "--purge", "--yes", expect=None)


def log_in(page: Page, password: str) -> None:
    """Fill in the login page and wait for the launcher."""
    page.goto("/lab")
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")
    expect(page.locator(".jp-LauncherCard").first).to_be_visible()


def run_in(page: Page, cell: Locator, code: str) -> None:
    """Type code into a cell and run it."""
    editor = cell.locator(".cm-content")
    editor.fill(code)
    expect(editor).to_have_text(code)
    page.keyboard.press("Shift+Enter")
