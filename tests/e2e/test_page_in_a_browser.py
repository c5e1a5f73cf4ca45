"""The page in Debian's chromium, through a real `ssh -L`: as a person sees it, and as a screen reader would."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.test_page_of_auditors import record
from tests.engine.made_up_gpus import MADE_UP_GPUS, write_cdi_spec
from tests.support.chromium import barriers, opened
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.page_site import begin, records, use

pytestmark = pytest.mark.timeout(300)
OWN = ("/", "/runs", "/connect", "/account", "/may")
AUDITORS = ("/gpus", "/sessions", "/sessions/past", "/recordings", "/journal", "/journal/proof", "/who-can?user=alice",
            "/review", "/policies")  # fmt: skip
ADMINISTRATORS = ("/people", "/administration", "/administration/connections", "/administration/gpus")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    gpus = write_cdi_spec(tmp_path_factory.mktemp("cdi")).parent
    served = begin(tmp_path_factory.mktemp("gw"), DEVGW_GPUS_INVENTORY="cdi", DEVGW_GPUS_CDI_SPEC_DIRS=str(gpus))
    try:
        record(served.root / "state" / "recordings" / "alice", "aaaaaaaaaa", "step 1 loss 2.5", "step 2 loss 0.5")
        use(served, "carol", (0.2, 1 << 30), (3.5, 2 << 30), (1.0, 7 << 30))
        yield served
    finally:
        served.stop()


def watched(page: Page) -> list[str]:
    """Return a list that fills with what the browser complains of, and with requests that leave the page's origin."""
    complaints: list[str] = []
    page.on("console", lambda one: complaints.append(one.text) if one.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda one: None if "//localhost:" in one.url or one.url.startswith(("data:", "blob:"))
            else complaints.append(one.url))  # fmt: skip
    return complaints


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_view_is_open_to_everybody_and_stays_at_home(
    dark: bool, gateway: GatewayProcess, browser: Browser
) -> None:
    """Axe finds nothing, no rule of the page's own is broken, and no request leaves its origin."""
    with gateway.tunnel("carol", "devgw:80") as port, opened(browser, f"http://localhost:{port}", dark=dark) as page:
        complaints = watched(page)
        for path in (*OWN, *AUDITORS, *ADMINISTRATORS):
            page.goto(path)
            expect(page.locator("h1")).to_be_visible()
            assert (path, barriers(page)) == (path, [])
        assert complaints == []


def test_on_a_narrow_screen_nothing_is_wider_than_it(gateway: GatewayProcess, browser: Browser) -> None:
    """Tables scroll by themselves."""
    with gateway.tunnel("carol", "devgw:80") as port, opened(browser, f"http://localhost:{port}", width=360) as page:
        for path in (*OWN, *AUDITORS, *ADMINISTRATORS):
            page.goto(path)
            widest = page.evaluate("document.documentElement.scrollWidth")
            assert (path, widest <= 360) == (path, True), widest


def test_load_is_a_graph_that_is_read_aloud_and_printed(gateway: GatewayProcess, browser: Browser) -> None:
    """By its name in words; on paper it stays, and what can only be clicked goes."""
    with gateway.tunnel("carol", "devgw:80") as port, opened(browser, f"http://localhost:{port}") as page:
        page.goto("/")
        for name in ("Processors that carol used", "Peak of memory of carol"):
            graph = page.get_by_role("img", name=name)
            expect(graph).to_be_visible()
            page.emulate_media(media="print")
            expect(graph).to_be_visible()
            expect(page.get_by_role("button", name="Start carol")).to_be_hidden()
            page.emulate_media(media="screen")


def test_the_access_review_is_printed_whole_and_signed(gateway: GatewayProcess, browser: Browser) -> None:
    """Everybody and the lines to sign stay on paper; the menu and what can only be clicked go."""
    with gateway.tunnel("bob", "devgw:80") as port, opened(browser, f"http://localhost:{port}") as page:
        page.goto("/review")
        page.emulate_media(media="print")
        for user in ("alice", "bob", "carol", "mallory"):
            expect(page.get_by_role("heading", name=user)).to_be_visible()
        expect(page.get_by_text("Reviewed by")).to_be_visible()
        expect(page.get_by_role("navigation", name="Pages")).to_be_hidden()
        assert page.pdf()[:5] == b"%PDF-"


def test_what_an_administrator_does_is_done_by_its_button(gateway: GatewayProcess, browser: Browser) -> None:
    """A GPU out of use and back, a connection ended with a reason, the journal checked, another notebook password.

    Acts that need an engine are in test_page_on_an_engine.
    """
    gpu = MADE_UP_GPUS[0]
    with gateway.tunnel("carol", "devgw:80") as port, opened(browser, f"http://localhost:{port}") as page:
        page.goto("/administration/gpus")
        row = page.locator("tr", has_text=gpu)
        row.get_by_label("Reason to take").fill("fan")
        row.get_by_role("button", name="Take out of use").click()
        expect(page.get_by_role("status")).to_contain_text("is out of use")
        expect(row).to_contain_text("fan")
        row.get_by_role("button", name="Put back").click()
        expect(page.get_by_role("status")).to_contain_text("is in use again")
        with gateway.tunnel("bob", "devgw:80"):
            poll(
                lambda: page.goto("/administration/connections") and page.get_by_text("bob").count(), "bob in the list"
            )
            page.get_by_label("Reason, shown to bob").first.fill("lunch")
            page.get_by_role("button", name="of bob").first.click()
            expect(page.get_by_role("status")).to_contain_text("ends within a second")
        page.goto("/journal/proof")
        page.get_by_role("button", name="Check now").click()
        poll(lambda: page.goto("/journal/proof") and page.get_by_text("records, from 1 to").count(), "what was found")
        page.goto("/")
        page.get_by_role("button", name="New notebook password").click()
        expect(page.locator("pre code")).not_to_be_empty()
    for code in ("gpu.quarantined", "gpu.restored", "session.killed", "password.changed"):
        assert records(gateway, code)[-1]["actor"]["name"] == "carol", code
    assert records(gateway, "session.killed")[-1]["detail"]["reason"] == "lunch"


def test_who_is_connected_is_shown_as_they_come_and_go(gateway: GatewayProcess, browser: Browser) -> None:
    """Without a reload: what somebody is just typing into the search stays."""
    with gateway.tunnel("bob", "devgw:80") as port, opened(browser, f"http://localhost:{port}") as page:
        complaints = watched(page)
        page.goto("/sessions")
        rows = page.locator("#connected tbody tr")
        poll(lambda: rows.count() == 1, "bob alone", 60)
        page.get_by_label("User, key, address").fill("half a wo")
        with gateway.tunnel("alice", "devgw:80"):
            poll(lambda: rows.count() == 2, "alice", 60)
            expect(page.locator("#connected")).to_contain_text("2 connections")
        poll(lambda: rows.count() == 1, "her end", 60)
        expect(page.get_by_label("User, key, address")).to_have_value("half a wo")
        assert complaints == []


def test_a_recording_is_played(gateway: GatewayProcess, browser: Browser) -> None:
    """Asciinema's player draws what the terminal showed, under the page's own rules."""
    with gateway.tunnel("bob", "devgw:80") as port, opened(browser, f"http://localhost:{port}") as page:
        complaints = watched(page)
        page.goto("/recordings/aaaaaaaaaa")
        page.locator(".ap-player").click()
        expect(page.locator(".ap-player")).to_contain_text("loss 0.5")
        assert complaints == []


def test_without_javascript_an_administrator_shuts_somebody_out(gateway: GatewayProcess, browser: Browser) -> None:
    """Forms alone."""
    base = "http://localhost"
    with gateway.tunnel("carol", "devgw:80") as port, opened(browser, f"{base}:{port}", scripts=False) as page:
        page.goto("/people")
        row = page.locator("tr", has_text="alice")
        row.get_by_role("button", name="Disable").click()
        expect(page.get_by_text("alice is shut out")).to_be_visible()
        page.locator("tr", has_text="alice").get_by_role("button", name="Enable").click()
        expect(page.locator("tr", has_text="alice").get_by_role("button", name="Disable")).to_be_visible()
