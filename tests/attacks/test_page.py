"""Row J: what a browser, a web site open in it, a neighbour on either machine or a hostile text tries at the page."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path

import asyncssh
import pytest
import requests

from gateway.audit.events import session_opened
from gateway.audit.journal import Journal
from gateway.model import Actor
from tests.support.gateway_process import GatewayProcess, poll
from tests.support.page_site import Browser, add, begin, browser, records

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"
PAGE_UID = 199999


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    served = begin(tmp_path_factory.mktemp("gw"))
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def alice(gateway: GatewayProcess) -> Iterator[Browser]:
    with browser(gateway, "alice") as one:
        one.get("/")
        yield one


@pytest.fixture(scope="module")
def carol(gateway: GatewayProcess) -> Iterator[Browser]:
    with browser(gateway, "carol") as one:
        one.get("/")
        yield one


@pytest.mark.attack("J1", "a name that was made to lead to localhost (DNS rebinding)")
@pytest.mark.parametrize(
    "host",
    ["evil.example:9000", "localhost.evil.example", "localhost@evil.example", "127.0.0.1.evil.example:80", "192.0.2.1",
     "localhost:9000:1", "localhost:x", "", "devgw.", "[::1].evil"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/", "/enter?token=x", "/static/page.css"])
def test_only_the_pages_own_names_are_answered(alice: Browser, host: str, path: str) -> None:
    """With the right cookie too, and what is said then says nothing of the viewer's."""
    status, headers, text = asked_as(alice, host, path)
    assert status in {400, 421}
    assert "Your environments" not in text
    assert "Set-Cookie" not in headers


def test_its_own_name_is_answered(alice: Browser) -> None:
    """Asked in the same words: else the refusals above could be of something else."""
    status, _, text = asked_as(alice, f"localhost:{alice.port}", "/")
    assert (status, "Your environments" in text) == (200, True)


@pytest.mark.attack("J1", "two Host headers")
def test_two_names_are_none(alice: Browser) -> None:
    assert raw(alice, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n").startswith(b"HTTP/1.1 4")


@pytest.mark.attack("J2", "another site's page, a notebook on another port of localhost, or a frame asks for it (CSRF)")
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "nonsense"},
        {"Origin": "http://localhost:8888", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "null", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "", "Sec-Fetch-Site": "none"},
    ],
)
def test_what_another_page_asks_for_is_refused(
    gateway: GatewayProcess, alice: Browser, headers: dict[str, str]
) -> None:
    """The cookie is right and so is the form's token: a browser would send the one, and a leak give the other."""
    token, mark = alice.form_token(), passwords_given(gateway)
    sent = {"Origin": alice.origin} | headers
    refused = alice.post("/environments/main/password", headers=sent, form_token=token)
    assert refused.status_code == 403
    if "Sec-Fetch-Site" in headers and headers["Sec-Fetch-Site"] not in {"none", "same-origin"}:
        shown = alice.get("/", headers=headers)
        assert shown.status_code == 403
        assert "Your environments" not in shown.text
    assert passwords_given(gateway) == mark


@pytest.mark.attack("J2", "a form without an Origin")
def test_a_form_that_does_not_say_where_it_is_from_is_refused(alice: Browser) -> None:
    token = alice.form_token()
    answer = alice.session.post(f"{alice.origin}/environments/main/password", data={"form_token": token}, timeout=30)
    assert answer.status_code == 403


@pytest.mark.attack("J3", "a form's token that is another connection's, or none")
@pytest.mark.parametrize("token", ["", "0" * 64, "ä", "x" * 5000])
def test_a_form_needs_its_connections_token(alice: Browser, token: str) -> None:
    refused = alice.post("/environments/main/password", form_token=token)
    assert refused.status_code == 403
    assert "nothing was done" in refused.text


@pytest.mark.attack("J4", "a cookie stolen by another port of localhost, used through another SSH connection")
def test_a_cookie_counts_on_its_own_connection_alone(gateway: GatewayProcess, carol: Browser) -> None:
    """Bob holds carol's cookie and token: what he gets is his own page, and what he sends is refused."""
    with browser(gateway, "bob") as bob:
        bob.session.cookies.update(carol.session.cookies)
        shown = bob.get("/")
        assert '<span class="visually-hidden">You are </span>bob' in shown.text
        refused = bob.post("/people/alice/disable", form_token=carol.form_token())
        assert refused.status_code == 403
        [own] = [cookie.name for cookie in bob.session.cookies if cookie.name not in carol.session.cookies]
        [stolen] = carol.session.cookies.values()
        bob.session.cookies.clear()
        answer = bob.get("/", headers={"Cookie": f"{own}={stolen}"}, follow=False)
        assert answer.status_code == 303
    with browser(gateway, "carol") as second:
        second.session.cookies.update(carol.session.cookies)
        refused = second.post("/people/alice/disable", form_token=carol.form_token())
        assert refused.status_code == 403
    assert not records(gateway, "user.disabled")


@pytest.mark.attack("J4", "the cookie read by a script, sent by another site, or kept")
def test_the_cookie_is_the_browsers_alone(alice: Browser) -> None:
    with requests.Session() as fresh:
        first = fresh.get(alice.origin + "/", allow_redirects=False, timeout=30)
        assert first.status_code == 303
        assert re.fullmatch(r"/enter\?token=[0-9a-f]{64}&to=%2F", first.headers["Location"])
        assert "Set-Cookie" not in first.headers
        entered = fresh.get(alice.origin + first.headers["Location"], allow_redirects=False, timeout=30)
        cookie = entered.headers["Set-Cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert "max-age" not in cookie
        assert "expires" not in cookie
        wrong = fresh.get(alice.origin + "/enter?token=" + "0" * 64, allow_redirects=False, timeout=30)
        assert "Set-Cookie" not in wrong.headers


@pytest.mark.attack("J5", "a first URL that leads on to another site")
@pytest.mark.parametrize(
    "place",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "/a\r\nX: y",
    ],
)
def test_the_entrance_leads_to_this_page_alone(alice: Browser, place: str) -> None:
    answer = alice.session.get(
        f"{alice.origin}/enter", params={"token": "0", "to": place}, allow_redirects=False, timeout=30
    )
    assert answer.headers["Location"] == "/"


@pytest.mark.attack("J6", "a claim to be somebody else, sent by the browser before its request")
def test_a_claim_of_the_clients_own_is_no_claim(alice: Browser) -> None:
    """The line that counts was written by the gateway before a byte of the client's; the next is HTTP or nothing."""
    subject = {"user": "carol", "address": "127.0.0.1", "key_algorithm": "ssh-ed25519"}
    fields = {"subject": subject, "environment": "carol", "connection": "00000000", "secret": "0" * 64}
    forged = b64encode(json.dumps(fields).encode()) + b"." + b"0" * 64 + b"\n"
    answer = raw(alice, forged + b"GET /people HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400")
    headers = b"X-Forwarded-User: carol\r\nX-Forwarded-For: 192.0.2.1\r\nForwarded: for=carol\r\nRemote-User: carol\r\n"
    answer = raw(alice, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + headers + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 303")


@pytest.mark.attack("J6", "another account of the host connects to the page's socket or reads its seal")
def test_the_socket_and_the_seal_are_the_gateways_alone(gateway: GatewayProcess) -> None:
    """The path is opened for the other account, so that the files' own modes have to hold."""
    run = gateway.root / "run"
    socket_file, seal = run / "page.sock", run / "page.seal"
    assert (socket_file.stat().st_mode & 0o777, seal.stat().st_mode & 0o777) == (0o600, 0o600)
    code = """if True:
        import os, socket, sys
        os.setgroups([]); os.setresgid(65534, 65534, 65534)
        inside = os.open(sys.argv[1], os.O_PATH)
        os.setresuid(65534, 65534, 65534)
        for attempt in (
            lambda: socket.socket(socket.AF_UNIX).connect(f"/proc/self/fd/{inside}/page.sock"),
            lambda: os.open("page.seal", os.O_RDONLY, dir_fd=inside),
        ):
            try: attempt()
            except PermissionError: continue
            sys.exit("it was let in")
    """
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.attack("J7", "the process that speaks HTTP, taken over: files, network, signals, other processes")
def test_the_process_that_speaks_http_has_no_right(gateway: GatewayProcess, alice: Browser) -> None:
    assert alice.get("/").status_code == 200
    status = Path(f"/proc/{web_process(gateway)}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(PAGE_UID)] * 4
    assert fields["Gid"].split() == [str(PAGE_UID)] * 4
    assert fields["Groups"].strip() == ""
    assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
    assert fields["NoNewPrivs"].strip() == "1"


@pytest.mark.attack("J7", "the same where the gateway is nobody's root: its own account's files")
def test_what_is_confined_opens_reaches_and_begins_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("key")
    code = """if True:
        import os, socket, sys
        from gateway.page.web.confinement import confine
        listening = socket.create_server(("127.0.0.1", 0))
        there = socket.socket(socket.AF_UNIX); there.bind(sys.argv[2]); there.listen()
        here = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        left = os.getppid()
        confine(-1)
        def tcp(): socket.create_connection(listening.getsockname(), 2)
        def unix():
            here.connect(sys.argv[2])
        attempts = {
            "read": lambda: open(sys.argv[1]),
            "write": lambda: open(sys.argv[1] + ".new", "w"),
            "list": lambda: os.listdir("/"),
            "mode": lambda: os.chmod(sys.argv[1], 0o777),
            "remove": lambda: os.unlink(sys.argv[1]),
            "tcp": tcp,
            "unix": unix,
            "socket": lambda: socket.socket(socket.AF_UNIX),
            "listen": lambda: socket.create_server(("127.0.0.1", 0)),
            "program": lambda: os.execv("/bin/true", ["true"]),
            "signal": lambda: os.kill(left, 0),
            "memory": lambda: open(f"/proc/{left}/mem", "rb"),
        }
        for name, attempt in attempts.items():
            try: attempt()
            except OSError: continue
            print(name)
    """
    command = [sys.executable, "-c", code, str(secret), str(tmp_path / "s")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.attack("J8", "a user's own texts with markup, quotes and template signs in them")
def test_hostile_texts_are_shown_as_what_they_are(gateway: GatewayProcess, carol: Browser) -> None:
    """What failed of an environment, an image, a search, an address that does not exist."""
    add(gateway, "eve", detail=HOSTILE, image=HOSTILE, gpu_request=HOSTILE, datasets=[HOSTILE])
    with browser(gateway, "eve") as eve:
        pages = [eve.get("/").text, eve.get(f"/{HOSTILE}").text, eve.get(f"/?search={HOSTILE}").text]
        assert HOSTILE.split("<img", maxsplit=1)[0] not in pages[0]
        assert "&lt;script&gt;alert(1)" in pages[0]
    pages += [carol.get(f"/people?search={HOSTILE}").text]
    assert "&lt;script&gt;" in pages[-1]
    for page in pages:
        assert "<script>" not in page
        assert "onerror=alert(2)>" not in re.sub(r"&[a-z#0-9]+;", "", page.replace("&gt;", ""))
        assert "49" not in re.findall(r"x onerror=alert\(2\)(.*)", page)


@pytest.mark.attack("J8", "a user name that nobody has and a command with markup, shown to who reads the journal")
def test_hostile_names_and_commands_of_the_journal_are_text(gateway: GatewayProcess, carol: Browser) -> None:
    """The name is tried at the door; the command is one that the gateway wrote down."""
    name = "<img src=x onerror=alert(3)>"
    asyncio.run(knock(gateway, name))
    journal = Journal(gateway.root / "state" / "journal")
    actor = Actor("user", "alice", "SHA256:abc", "192.0.2.7")
    journal.append(session_opened(actor, "alice", "exec", terminal=False, command=HOSTILE))
    journal.close()
    for path in ("/journal?denied=on", "/journal?action=login.refused", "/journal?action=session.opened"):
        page = carol.get(path).text
        assert "<img src=x" not in page
        assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;img src=x onerror=alert(3)&gt;" in carol.get("/journal?action=login.refused").text


@pytest.mark.attack("J8", "scripts, styles and frames of a page's own, should a text get through after all")
@pytest.mark.parametrize("path", ["/", "/people", "/nothing", "/static/page.css", "/static/none", "/enter?token=x"])
def test_every_answer_lets_the_browser_run_nothing_else(carol: Browser, path: str) -> None:
    headers = carol.get(path, follow=False).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == policy["form-action"] == "'self'"
    assert policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.attack("J9", "files beside the static ones")
@pytest.mark.parametrize(
    "name", ["../templates/layout.html", "..%2f..%2fclaim.py", "%2e%2e/site.py", "/etc/passwd", ""]
)
def test_static_files_are_those_in_the_list(alice: Browser, name: str) -> None:
    request = f"GET /static/{name} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert raw(alice, request.encode()).split(b" ")[1] in {b"404", b"303", b"307"}


@pytest.mark.attack("J10", "an act by a link: GET, HEAD, or a method in disguise")
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_is_done_by_any_method_but_a_form(alice: Browser, method: str) -> None:
    headers = {"Origin": alice.origin, "X-HTTP-Method-Override": "POST"}
    answer = alice.session.request(method, f"{alice.origin}/environments/main/stop", headers=headers, timeout=30)
    assert answer.status_code in {404, 405}


@pytest.mark.attack("J11", "a form without end, of another kind, of ten thousand fields, or that is no text")
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 300_000),
        ("application/x-www-form-urlencoded", b"&".join(b"a=1" for _ in range(10_000))),
        ("application/x-www-form-urlencoded", b"a=\xff\xfe"),
        ("application/json", b"{}"),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("text/plain", b"form_token=x"),
    ],
)
def test_what_is_no_form_of_the_page_is_refused(alice: Browser, kind: str, body: bytes) -> None:
    """And the next request is answered."""
    headers = {"Origin": alice.origin, "Content-Type": kind}
    answer = alice.session.post(f"{alice.origin}/environments/main/stop", data=body, headers=headers, timeout=30)
    assert answer.status_code == 400
    assert alice.get("/").status_code == 200


@pytest.mark.attack("J12", "one user's connections without end")
def test_one_user_does_not_take_everybodys_room(gateway: GatewayProcess, alice: Browser) -> None:
    """Beyond its bound a connection is closed at once; others' are answered."""
    with ExitStack() as stack:
        ends = [
            stack.enter_context(socket.create_connection(("127.0.0.1", alice.port), timeout=30)) for _ in range(100)
        ]
        answered = sum(is_answered(one) for one in ends)
        with browser(gateway, "bob") as bob:
            assert bob.get("/").status_code == 200
    assert 32 <= answered <= 64
    poll(lambda: alice.get("/").status_code == 200, "alice's own page")


@pytest.mark.attack("F9", "a page that stays open when its user is shut out")
@pytest.mark.emits("user.disabled", "session.revoked")
def test_a_user_who_is_shut_out_has_no_page_from_then_on(gateway: GatewayProcess) -> None:
    """The next request is refused, whether the connection, which has two seconds, has ended yet or not."""
    add(gateway, "fred")
    with browser(gateway, "fred") as fred:
        assert fred.get("/").status_code == 200
        gateway.devgw("user", "disable", "fred")
        with suppress(requests.RequestException):
            assert fred.get("/").status_code == 403
        poll(lambda: is_shut(fred), "the end of the connection")


@pytest.mark.attack("F10", "a page that stays open when the policy takes it away")
def test_a_level_that_is_taken_away_is_gone_at_the_next_request(gateway: GatewayProcess) -> None:
    """Carol's twin becomes a user again, and then nobody: her SSH connection stays."""
    add(gateway, "gina")
    policy = gateway.root / "etc" / "policy.toml"
    text = policy.read_text()
    grant = '[[grants]]\nusers = ["gina"]\nroles = ["member", "%s"]\n'
    try:
        policy.write_text(text + grant % "administrator")
        with browser(gateway, "gina") as gina:
            poll(lambda: gina.get("/people").status_code == 200, "the administrator's page")
            policy.write_text(text + grant % "auditor")
            poll(lambda: gina.get("/people").status_code == 403, "its end")
            assert gina.get("/").status_code == 200
            policy.write_text(text + grant % "no-page")
            poll(lambda: is_shut(gina), "the end of any page")
    finally:
        policy.write_text(text)


@pytest.mark.parametrize("half", ["web", "desk"])
def test_a_page_that_is_killed_comes_back_and_says_so(gateway: GatewayProcess, alice: Browser, half: str) -> None:
    """Its users read that it is being started again, or wait for the answer; nobody logs in again."""
    assert alice.get("/").status_code == 200
    first = web_process(gateway)
    os.kill(first if half == "web" else parent_of(first), signal.SIGKILL)
    seen = set()

    def is_back() -> bool:
        try:
            answer = alice.get("/")
        except requests.ConnectionError:
            seen.add("closed")
            return False
        seen.add(answer.status_code)
        assert answer.status_code in {200, 503}
        return answer.status_code == 200

    poll(is_back, "the page", 60)
    assert seen - {200} <= {503, "closed"}
    assert web_process(gateway) != first
    assert alice.post("/environments/main/password").status_code == 200


async def knock(gateway: GatewayProcess, name: str) -> None:
    """Log in under any name: OpenSSH's client sends none with such signs."""
    key = str(gateway.make_key("alice"))
    with pytest.raises(asyncssh.PermissionDenied):
        await asyncssh.connect(
            "127.0.0.1", gateway.port, username=name, client_keys=[key], known_hosts=None, config=[], login_timeout=60
        )


def asked_as(one: Browser, host: str, path: str) -> tuple[int, Message, str]:
    """Ask under a name that other clients refuse to send, as the viewer; return status, headers and text."""
    with closing(HTTPConnection("127.0.0.1", one.port, timeout=30)) as connection:
        connection.putrequest("GET", path, skip_host=True)
        connection.putheader("Host", host)
        connection.putheader("Cookie", "; ".join(f"{cookie.name}={cookie.value}" for cookie in one.session.cookies))
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()


def raw(one: Browser, sent: bytes) -> bytes:
    """Send bytes; return the beginning of what comes back."""
    with socket.create_connection(("127.0.0.1", one.port), timeout=30) as connection:
        connection.sendall(sent)
        return connection.recv(4096)


def is_answered(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        return connection.recv(4096).startswith(b"HTTP/1.1 303")
    except OSError:
        return False


def is_shut(one: Browser) -> bool:
    """Say whether nothing answers any more."""
    try:
        one.session.get(f"{one.origin}/", timeout=5)
    except requests.RequestException:
        return True
    return False


def passwords_given(gateway: GatewayProcess) -> int:
    """Count in the journal how often a notebook password was replaced."""
    files = (gateway.root / "state" / "journal").glob("segment-*.jsonl")
    return sum(file.read_text().count('"code":"password.changed"') for file in files)


def web_process(gateway: GatewayProcess) -> int:
    """Return the pid of the process that speaks HTTP."""
    assert gateway.server is not None
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_web = b"gateway.page.web" in (place / "cmdline").read_bytes().split(b"\0")
            if is_web and parent_of(parent_of(int(place.name))) == gateway.server.pid:
                return int(place.name)
    raise AssertionError("nothing of this gateway speaks HTTP")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
