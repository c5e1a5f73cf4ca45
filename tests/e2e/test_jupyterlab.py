"""JupyterLab as a person sees it: a browser on a real `ssh -L`, the password, a cell and a plot."""

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.conftest import ServedUsers
from tests.support.chromium import opened

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
