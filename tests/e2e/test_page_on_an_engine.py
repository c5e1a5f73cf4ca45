"""The page's acts on a real engine: what a button says is done is done, seen from the engine's side and from inside."""

import html
import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, expect

from tests.support.chromium import opened
from tests.support.engine_variables import engine_variables
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.notebook_client import NotebookClient
from tests.support.page_site import browser as opened_page
from tests.support.page_site import records

pytestmark = [pytest.mark.engine, pytest.mark.timeout(420)]

POLICY = """
version = 1
default_roles = ["member"]
[roles.member]
sessions = ["shell", "exec", "sftp"]
permit_open = "any-loopback"
images = ["*"]
max_memory = "4GiB"
max_cpus = 4
max_environments = 2
max_gpus = 1
max_lease = "2h"
[roles.administrator]
page = "admin"
[[grants]]
users = ["carol"]
roles = ["member", "administrator"]
"""
_CODE = re.compile(r"<code>([^<]*)</code>")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """Serve alice, who has an environment, and carol, who may do everything on the page."""
    served = GatewayProcess(tmp_path_factory.mktemp("gw"), engine_variables())
    try:
        served.devgw("init")
        (served.root / "etc" / "policy.toml").write_text(POLICY)
        served.create("alice")
        served.create("carol")
        served.serve()
        yield served
    finally:
        served.close()


def state(gateway: GatewayProcess, handle: str) -> str:
    """Return the state as the engine has it."""
    return str(gateway.devgw_json("show", handle)["environment"]["state"])


def state_of_all(gateway: GatewayProcess) -> dict[str, str]:
    """Return every environment's state."""
    return {one["handle"]: one["state"] for one in gateway.devgw_json("list")["environments"]}


def first_process(gateway: GatewayProcess, handle: str) -> bytes:
    """Return when the environment's first process began."""
    return gateway.ssh(handle, "cut -d' ' -f22 /proc/1/stat").stdout


def test_a_user_stops_starts_and_restarts_their_own(gateway: GatewayProcess) -> None:
    """Each act is over when the page says so; what is done already is no failure; files stay."""
    gateway.ssh("alice", "echo kept > /workspace/kept")
    with opened_page(gateway, "alice") as alice:
        stopped = alice.post("/environments/main/stop")
        assert "main is stopped" in stopped.text
        assert state(gateway, "alice") == "stopped"
        assert 'action="/environments/main/start"' in stopped.text
        assert alice.post("/environments/main/stop").status_code == 200  # of another tab
        started = alice.post("/environments/main/start")
        assert "main runs." in started.text
        assert state(gateway, "alice") == "running"
        assert alice.post("/environments/main/start").status_code == 200
        before = first_process(gateway, "alice")
        again = alice.post("/environments/main/restart")
        assert "main runs again." in again.text, again.text
    assert before.strip().isdigit()
    assert first_process(gateway, "alice") != before
    assert gateway.ssh("alice", "cat /workspace/kept").stdout == b"kept\n"
    actors = [records(gateway, code)[-1]["actor"] for code in ("environment.stopped", "environment.started")]
    assert {(one["kind"], one["name"], one["address"]) for one in actors} == {("user", "alice", "127.0.0.1")}


def test_another_notebook_password_opens_the_notebook(gateway: GatewayProcess) -> None:
    with opened_page(gateway, "alice") as alice:
        shown = alice.post("/environments/main/password").text
    [password] = _CODE.findall(shown)
    with gateway.tunnel("alice") as port:
        NotebookClient(f"http://localhost:{port}").login(html.unescape(password))


def test_an_administrator_makes_one_with_a_gpu_and_its_user_keeps_the_gpu_longer(
    gateway: GatewayProcess, browser: Chromium
) -> None:
    """In a browser: who was not there before logs in with the key of the form; the end of the lease moves."""
    public = gateway.make_key("dora").with_suffix(".pub").read_text()
    with gateway.tunnel("carol", "devgw:80") as port, opened(browser, f"http://localhost:{port}") as page:
        page.goto("/administration")
        fill_in(page, "dora", memory="64GiB")
        expect(page.get_by_text("memory").first).to_be_visible()
        assert state_of_all(gateway).keys() == {"alice", "carol"}
        page.goto("/administration")
        fill_in(page, "dora", gpu="1", memory="1GiB", key=public)
        expect(page.get_by_role("heading", name="dora runs")).to_be_visible()
        line, password = page.locator("dd code").all_inner_texts()
        page.goto("/administration")
        fill_in(page, "dora")
        expect(page.get_by_text("exists").first).to_be_visible()
    assert line == gateway.devgw_json("show", "dora")["ssh_command"]
    assert gateway.ssh("dora", "id -un").stdout == b"dora\n"
    with gateway.tunnel("dora") as port:
        NotebookClient(f"http://localhost:{port}").login(password)
    longer = (gateway.root / "etc" / "policy.toml").read_text().replace('max_lease = "2h"', 'max_lease = "9h"')
    mark = len(records(gateway, "policy.loaded"))
    (gateway.root / "etc" / "policy.toml").write_text(longer)
    poll(lambda: len(records(gateway, "policy.loaded")) > mark, "the policy")
    with gateway.tunnel("dora", "devgw:80") as port, opened(browser, f"http://localhost:{port}") as page:
        poll(lambda: is_extended(page), "the longer lease")
        page.get_by_label("Keep the GPUs").select_option("1 day")
        page.get_by_role("button", name="Extend").click()
        expect(page.get_by_text("max_lease")).to_be_visible()
    extended = records(gateway, "lease.extended")
    assert [one["actor"]["name"] for one in extended] == ["dora"]


def fill_in(page: Page, handle: str, gpu: str = "0", memory: str = "", key: str = "") -> None:
    """Fill in the form for another environment and send it."""
    page.get_by_label("User, or user+name").fill(handle)
    page.get_by_label("GPUs", exact=True).fill(gpu)
    page.get_by_label("Memory").fill(memory)
    page.get_by_label("Public key").fill(key)
    page.get_by_role("button", name="Make it").click()


def is_extended(page: Page) -> bool:
    """Ask for four hours more; the page's process hears of a policy a moment after the gateway."""
    page.goto("/")
    page.get_by_label("Keep the GPUs").select_option("4 hours")
    with page.expect_navigation():
        page.get_by_role("button", name="Extend").click()
    return page.get_by_text("The GPUs of main are yours until").count() == 1


def test_an_administrator_stops_and_starts_somebody_elses(gateway: GatewayProcess) -> None:
    with opened_page(gateway, "carol") as carol:
        assert carol.post("/administration/environments/alice/stop").status_code == 200
        assert state(gateway, "alice") == "stopped"
        assert carol.post("/administration/environments/alice/start").status_code == 200
        assert state(gateway, "alice") == "running"


def test_in_a_browser_the_buttons_do_it(gateway: GatewayProcess, browser: Chromium) -> None:
    """By the keyboard alone: stop, start, restart."""
    with gateway.tunnel("alice", "devgw:80") as port, opened(browser, f"http://localhost:{port}") as page:
        page.goto("/")
        page.get_by_role("button", name="Stop alice").press("Enter")
        expect(page.get_by_role("status")).to_contain_text("main is stopped")
        page.get_by_role("button", name="Start alice").press("Enter")
        expect(page.get_by_role("status")).to_contain_text("main runs.")
        page.get_by_role("button", name="Restart alice").press("Enter")
        expect(page.get_by_role("status")).to_contain_text("main runs again.")
