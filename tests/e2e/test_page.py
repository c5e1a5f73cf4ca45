"""The page through a real `ssh -L`: the SSH login is the login, and what each level sees and may do."""

import html
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import requests

from tests.support.gateway_process import GatewayProcess, poll
from tests.support.page_site import Browser, add, begin, browser, fill, records, use


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    served = begin(tmp_path_factory.mktemp("gw"))
    try:
        yield served
    finally:
        served.stop()


def test_the_ssh_login_is_the_login(gateway: GatewayProcess) -> None:
    """The plain address leads to the own environments, and to nobody else's."""
    with browser(gateway, "alice") as alice:
        answer = alice.get("/")
        assert answer.status_code == 200
        assert answer.url == f"{alice.origin}/"
        assert "<h1>Your environments</h1>" in answer.text
        assert "alice" in answer.text
        assert "bob" not in answer.text


@pytest.mark.emits("page.allowed", "user.disabled", "user.enabled")
def test_an_act_of_an_administrator_is_the_command_lines_own(gateway: GatewayProcess) -> None:
    """It is decided, done and journaled with the person's own name, key and address."""
    add(gateway, "dave")
    with browser(gateway, "carol") as carol:
        assert "dave" in carol.get("/people").text
        done = carol.post("/people/dave/disable")
        assert done.url == f"{carol.origin}/people"
        assert "dave is shut out" in done.text
        assert "dave is shut out" not in carol.get("/people").text
        assert gateway.ssh("dave", "true").returncode == 255
        assert carol.post("/people/dave/enable").status_code == 200
    allowed = records(gateway, "page.allowed")[0]
    disabled = records(gateway, "user.disabled")[0]
    for record in (allowed, disabled):
        actor = record["actor"]
        assert (actor["kind"], actor["name"], actor["address"]) == ("user", "carol", "127.0.0.1")
        assert actor["key"].startswith("SHA256:")
    assert (allowed["detail"]["act"], allowed["detail"]["target"]) == ("people.disable", "user=dave")
    assert allowed["rule"].startswith("roles.administrator.page (policy.toml:")


@pytest.mark.emits("page.denied")
@pytest.mark.parametrize("user", ["alice", "bob"])
def test_what_a_level_does_not_hold_is_refused_and_written_down(gateway: GatewayProcess, user: str) -> None:
    """The menu does not have it, the address does not open it, and the form does nothing."""
    with browser(gateway, user) as one:
        assert "/people" not in one.get("/").text
        shown = one.get("/people")
        assert shown.status_code == 403
        assert "no role gives the page of an administrator" in shown.text
        assert one.post("/people/carol/disable").status_code == 403
    denied = [record for record in records(gateway, "page.denied") if record["actor"]["name"] == user]
    assert {record["detail"]["target"] for record in denied} == {"/people", "/people/carol/disable"}
    with browser(gateway, "carol") as carol:
        assert carol.get("/").status_code == 200


def test_a_role_without_the_page_reaches_nothing(gateway: GatewayProcess) -> None:
    """A denial counts whatever another role gives."""
    *command, destination = gateway.ssh_command("mallory")
    refused = subprocess.run([*command, "-W", "devgw:80", destination], capture_output=True, timeout=60, check=False)
    assert (refused.returncode, refused.stdout) == (255, b"")
    [denied] = [one for one in records(gateway, "forward.denied") if one["detail"]["port"] == 80]
    assert denied["rule"].startswith("roles.no-page.deny.permit_open (policy.toml:")


@pytest.mark.parametrize("port", [9464, 81])
def test_who_has_the_page_has_no_other_port_of_the_gateway(gateway: GatewayProcess, port: int) -> None:
    """An administrator's page and any port of their environment are no right to the metrics: refused and journaled."""
    *command, destination = gateway.ssh_command("carol")
    refused = subprocess.run(
        [*command, "-W", f"devgw:{port}", destination], capture_output=True, timeout=60, check=False
    )
    assert (refused.returncode, refused.stdout) == (255, b"")
    [denied] = [one for one in records(gateway, "forward.denied") if one["detail"]["port"] == port]
    assert (denied["actor"]["name"], denied["detail"]["host"]) == ("carol", "devgw")


def test_a_user_acts_on_their_own_environment_only(gateway: GatewayProcess) -> None:
    """What is named in the address is always one of the viewer's own."""
    with browser(gateway, "alice") as alice:
        done = alice.post("/environments/main/password")
        assert "It is shown this once" in done.text
        assert alice.post("/environments/bob/stop").status_code == 404
        assert alice.post("/environments/bob%2Bmain/stop").status_code == 400
    changed = records(gateway, "password.changed")
    assert [(one["environment"], one["actor"]["name"]) for one in changed] == [("alice", "alice")]


@pytest.mark.parametrize(
    "path", ["/", "/runs", "/connect", "/account", "/account?days=7", "/may", "/may?question=gpu+2"]
)
def test_everybodys_views_are_shown(gateway: GatewayProcess, path: str) -> None:
    with browser(gateway, "alice") as alice:
        answer = alice.get(path)
        assert answer.status_code == 200, answer.text
        assert "<h1>" in answer.text


def test_a_disk_is_said_with_its_size_and_what_keeps_it(gateway: GatewayProcess) -> None:
    """Plainly too where nothing does: to its user, to administrators, and to auditors in the fullest's place."""
    add(gateway, "ida", disk_bytes=3 << 29)
    with browser(gateway, "ida") as ida, browser(gateway, "alice") as alice, browser(gateway, "carol") as carol:
        assert "<dt>Disk</dt><dd>1.5GiB, not enforced: " in ida.get("/").text
        assert "<dt>Disk</dt><dd>no size of its own" in alice.get("/").text
        assert "<td>1.5GiB not enforced</td>" in carol.get("/administration").text
        assert "<td>ida</td><td>1.5GiB, not enforced: " in carol.get("/gpus").text


@pytest.mark.parametrize("path", ["/people", "/administration", "/administration/connections", "/administration/gpus"])
def test_an_administrators_views_are_shown_to_them_alone(gateway: GatewayProcess, path: str) -> None:
    with browser(gateway, "carol") as carol, browser(gateway, "bob") as bob:
        shown = carol.get(path)
        assert shown.status_code == 200
        assert "built-in" not in shown.text
        assert bob.get(path).status_code == 403


def test_how_to_connect_is_what_the_command_line_says(gateway: GatewayProcess) -> None:
    """The same line, the same host key, the same configuration."""
    shown = gateway.devgw_json("show", "alice")
    config = gateway.devgw("config-ssh", "alice").stdout
    with browser(gateway, "alice") as alice:
        text = html.unescape(alice.get("/connect").text)
    assert shown["ssh_command"] in text
    assert shown["host_key_fingerprint"] in text
    assert config in text
    assert "vscode://vscode-remote/ssh-remote+" in text


def test_what_one_may_do_is_what_the_policy_decides(gateway: GatewayProcess) -> None:
    """With its rule, for the viewer's own key; a question of one's own too, and one that is none says what is."""
    with browser(gateway, "alice") as alice:
        text = alice.get("/may?question=page+admin").text
        assert "no role gives the page of an administrator" in text
        assert "roles.member.sessions (policy.toml:" in alice.get("/may").text
        refused = alice.get("/may?question=fly")
        assert refused.status_code == 400
        assert "is no question" in refused.text


def test_load_over_hours_is_shares_of_the_limits(gateway: GatewayProcess) -> None:
    """One bar an hour, none where nobody looked, and in words what the bars say; only the viewer's own."""
    add(gateway, "ivan")
    use(gateway, "ivan", *[(3.0, 7 << 30)] * 9, *[(0.0, 1)] * 21, (2.0, 1 << 30), (0.5, 6 << 30), (1.25, 3 << 30))
    with browser(gateway, "ivan") as ivan, browser(gateway, "bob") as bob:
        shown, others = ivan.get("/").text, bob.get("/").text
    assert "1.25 of 4 in the last hour seen, at most 2" in shown
    assert "3 GiB of 8 GiB in the last hour seen, at most 6 GiB" in shown
    first, second = re.findall(r"<svg.*?</svg>", shown, re.DOTALL)
    heights = [float(one) for one in re.findall(r'<rect x="[0-9]+" y="[0-9.]+" width="8" height="([0-9.]+)"', first)]
    assert len(heights) == 24
    assert [(one - 1) / 38 for one in heights[-3:]] == pytest.approx([0.5, 0.125, 0.3125], abs=0.01)
    assert "Peak of memory of ivan in each hour" in second
    assert "<svg" not in others


def test_a_runs_loss_and_checkpoint_are_what_it_wrote(gateway: GatewayProcess) -> None:
    """Of a run that goes on and one that ended; a link, a FIFO and nonsense in their place are none."""
    logs = gateway.root / "state" / "volumes" / "alice" / "main" / "logs"
    now = time.time()
    for run, steps in (("resnet", 400), ("<b>bold", 3)):
        (logs / run).mkdir(parents=True)
        lines = [
            json.dumps({"time": now - 60, "kind": "train", "step": step, "epoch": 1, "loss": 1 / step,
                        "checkpoint_age_seconds": 120.0, "samples_per_second": 512.0})
            for step in range(1, steps + 1)
        ]  # fmt: skip
        (logs / run / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 1e400}', "[", "nonsense"]) + "\n")
    (logs / ".runs").mkdir()
    (logs / ".runs" / "7.json").write_text(json.dumps({"run": "resnet", "pid": 7, "ticks": 1, "checkpoints": "/c"}))
    secret = gateway.root / "secret"
    secret.mkdir()
    (secret / "metrics.jsonl").write_text(json.dumps({"time": now, "kind": "train", "step": 666, "loss": 1}) + "\n")
    (logs / "link").symlink_to(secret)
    (logs / "linked-file").mkdir()
    (logs / "linked-file" / "metrics.jsonl").symlink_to(secret / "metrics.jsonl")
    (logs / "fifo").mkdir()
    os.mkfifo(logs / "fifo" / "metrics.jsonl")
    with browser(gateway, "alice") as alice:
        page = alice.get("/runs").text
        part = alice.get("/runs", headers={"HX-Request": "true", "Sec-Fetch-Site": "same-origin"}).text
    assert "step 400, epoch 1, 512 samples a second" in page
    assert "training</span>" in page
    assert "3 min ago" in page
    assert page.count("<polyline") == 2
    assert "666" not in page
    assert "&lt;b&gt;bold" in page
    assert "<html" not in part
    assert "step 400" in part


def test_a_page_of_ten_thousand_rows_is_cut(gateway: GatewayProcess) -> None:
    """And found by search; a page beyond the last is the last."""
    fill(gateway, 10_000)
    with browser(gateway, "carol") as carol:
        first = carol.get("/administration")
        assert first.text.count('<th scope="row">') == 100
        assert "Page 1 of 101" in first.text
        assert "Page 101 of 101" in carol.get("/administration?page=99999999").text
        assert "1 found" in carol.get("/administration?search=w09999").text
        assert carol.get("/people?page=2").status_code == 200
        took = []
        for _ in range(5):
            began = time.monotonic()
            carol.get("/")
            took.append(time.monotonic() - began)
    assert sorted(took)[2] < 2.0  # docs/reference/page.md says what it takes on a quiet machine


def test_auditors_lists_hold_ten_thousand_people(gateway: GatewayProcess) -> None:
    """Who can is cut into pages; the review, which is printed and signed, has everybody."""
    if len(gateway.devgw_json("user", "list")["users"]) < 10_000:
        fill(gateway, 10_000)
    with browser(gateway, "bob") as bob:
        asked = bob.get("/who-can?question=shell")
        assert asked.status_code == 200
        last = re.search(r"Page 1 of (\d+)", asked.text)
        assert last is not None
        assert int(last[1]) > 100
        assert "w09999" in bob.get(f"/who-can?question=shell&page={last[1]}").text
        review = bob.get("/review").text
    assert all(f"w{number:05}" in review for number in (0, 499, 500, 9999))


@pytest.mark.emits("session.killed")
def test_an_administrator_ends_a_connection(gateway: GatewayProcess) -> None:
    """Its user is cut off; the reason is in the journal; one that is not a line is refused."""
    with ExitStack() as stack:
        carol = stack.enter_context(browser(gateway, "carol"))

        def shown() -> str:
            rows = re.findall(r'<th scope="row">([0-9a-f]{8})</th><td>(\w+)</td>', connections(carol))
            return next((number for number, user in rows if user == "bob"), "")

        poll(lambda: not shown(), "the end of what bob had before")
        bob = stack.enter_context(browser(gateway, "bob"))
        assert bob.get("/").status_code == 200
        number = poll(shown, "bob's connection on the page")
        assert carol.post(f"/administration/connections/{number}/end", reason="a\nb").status_code == 400
        assert carol.post(f"/administration/connections/{number}/end", reason="lunch").status_code == 200
        assert carol.post("/administration/connections/00000000/end").status_code == 404

        def is_over() -> bool:
            try:
                bob.get("/")
            except requests.ConnectionError:
                return True
            return False

        poll(is_over, "the end of bob's connection")
    assert records(gateway, "session.killed")[-1]["detail"]["reason"] == "lunch"


def journal_text(gateway: GatewayProcess) -> str:
    return "".join(file.read_text() for file in (gateway.root / "state" / "journal").glob("segment-*.jsonl"))


def connections(carol: Browser) -> str:
    return carol.get("/administration/connections").text


def test_two_tabs_and_a_form_from_before(gateway: GatewayProcess) -> None:
    """Both act; after the tunnel was opened anew the old form does nothing, and the page says what to do."""
    with browser(gateway, "alice") as alice:
        first, second = alice.form_token(), alice.form_token()
        assert alice.post("/environments/main/password", form_token=first).status_code == 200
        assert alice.post("/environments/main/password", form_token=second).status_code == 200
    mark = len(records(gateway, "password.changed"))
    with browser(gateway, "alice") as again:
        again.session.cookies.update(alice.session.cookies)
        refused = again.post("/environments/main/password", form_token=first)
        assert refused.status_code == 403
        assert "nothing was done" in refused.text
    assert len(records(gateway, "password.changed")) == mark


def test_an_act_outlives_the_tunnel_that_asked_for_it(gateway: GatewayProcess) -> None:
    """The browser is gone before the answer; what was begun is done and written down."""
    mark = len(records(gateway, "user.disabled"))
    add(gateway, "hugo")
    with browser(gateway, "carol") as carol:
        carol.get("/")
        [cookie] = [f"{one.name}={one.value}" for one in carol.session.cookies]
        body = f"form_token={carol.form_token()}"
        request = (
            f"POST /people/hugo/disable HTTP/1.1\r\nHost: localhost:{carol.port}\r\nOrigin: {carol.origin}\r\n"
            f"Cookie: {cookie}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n"
            f"\r\n{body}"
        )
        with socket.create_connection(("127.0.0.1", carol.port), timeout=30) as connection:
            connection.sendall(request.encode())
            poll(lambda: '"target":"user=hugo"' in journal_text(gateway), "the beginning of the act")
    poll(lambda: len(records(gateway, "user.disabled")) > mark, "the record of the act")


def test_a_role_with_a_page_that_there_is_not_is_refused_with_its_line(gateway: GatewayProcess) -> None:
    """The gateway keeps the policy that it has."""
    bad = gateway.root / "bad.toml"
    bad.write_text('version = 1\n[roles.member]\nsessions = ["shell"]\npage = "x"\n')
    done = gateway.devgw("policy", "check", str(bad), expect=None)
    assert done.returncode != 0
    assert "roles.member.page" in done.stderr
    assert "'none', 'user', 'auditor' or 'admin'" in done.stderr


@pytest.mark.emits("policy.refused")
def test_a_faulty_policy_leaves_the_page_as_it_was(gateway: GatewayProcess) -> None:
    """The same file put into force: it is refused and journaled, and whose page somebody has stays."""
    policy = gateway.root / "etc" / "policy.toml"
    text, mark = policy.read_text(), len(records(gateway, "policy.refused"))
    try:
        policy.write_text(text.replace('page = "admin"', 'page = "x"'))
        poll(lambda: len(records(gateway, "policy.refused")) > mark, "the refusal")
        with browser(gateway, "carol") as carol, browser(gateway, "alice") as alice:
            assert carol.get("/people").status_code == 200
            assert alice.get("/people").status_code == 403
    finally:
        policy.write_text(text)
    assert "page" in records(gateway, "policy.refused")[-1]["reason"]


def test_every_worker_leads_to_the_one_page_and_it_rests(tmp_path: Path) -> None:
    """Connections are spread over workers; after a while without anybody the processes end, and begin with the next."""
    served = begin(tmp_path, ("alice",), DEVGW_SERVER_WORKERS="2", DEVGW_PAGE_IDLE_STOP="1s")
    try:
        for _ in range(4):
            with browser(served, "alice") as alice:
                poll(lambda one=alice: is_shown(one), "the page")
        poll(lambda: not web_processes(served), "the end of a page that nobody looks at")
        with browser(served, "alice") as alice:
            poll(lambda: is_shown(alice), "the page again")
            assert len(web_processes(served)) == 1
    finally:
        assert served.stop() == 0
    poll(lambda: not web_processes(served), "the end with the gateway")


def is_shown(one: Browser) -> bool:
    """Say whether the page is there; one that is just going to rest may close, and a browser tries again."""
    try:
        return one.get("/").status_code == 200
    except requests.ConnectionError:
        return False


def web_processes(gateway: GatewayProcess) -> list[int]:
    """Return the processes that speak HTTP for a gateway: they have its run directory's socket open."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"gateway.page.web" in (place / "cmdline").read_bytes().split(b"\0"):
                parent = Path(f"/proc/{(place / 'stat').read_text().rpartition(')')[2].split()[1]}")
                if str(gateway.root).encode() in (parent / "environ").read_bytes():
                    found.append(int(place.name))
    return found
