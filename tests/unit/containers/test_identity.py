"""The notebook's password, against a real Jupyter server on a Unix socket."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import bcrypt
import pytest
import requests
from devgw_environment.contract import Environment
from devgw_environment.identity import NO_PASSWORD, TOO_LONG, DevgwIdentityProvider, read_hash
from devgw_environment.notebook import notebook_command, notebook_variables

from tests.support.notebook_client import LoginRefusedError, NotebookClient
from tests.support.unix_door import open_door


def make_hash(password: str) -> str:
    """A cheap bcrypt hash."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


@dataclass
class Server:
    """A running server, the address that leads to it, and the file with its password."""

    base: str
    password_file: Path
    log: Path
    home: Path

    def set_password_file(self, content: str | None) -> None:
        """Replace the hash by rename, or remove the file."""
        if content is None:
            self.password_file.unlink(missing_ok=True)
            return
        draft = self.password_file.with_name("draft")
        draft.write_text(content)
        draft.rename(self.password_file)

    def try_login(self, password: str) -> requests.Response:
        """Send the login form once and return the answer."""
        session = requests.Session()
        session.trust_env = False
        session.get(f"{self.base}/login", timeout=30)
        form = {"password": password, "_xsrf": session.cookies["_xsrf"]}
        return session.post(f"{self.base}/login", data=form, allow_redirects=False, timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server as an environment starts it (as root too, which a test may be and an environment never is)."""
    folder = tmp_path_factory.mktemp("notebook")
    for name in ("run", "env", "home", "tmp"):
        (folder / name).mkdir()
    (folder / "home" / ".jupyter").mkdir()
    loosened = {"IdentityProvider": {"token": "open sesame"}, "DevgwIdentityProvider": {"token": "open sesame"}}
    (folder / "home" / ".jupyter" / "jupyter_server_config.json").write_text(json.dumps(loosened))
    environment = Environment("alice", folder / "home", "/bin/sh", folder / "run", folder / "env", 4.0)
    sources = Path(__file__).resolve().parents[3] / "containers" / "image" / "environment"
    variables = {
        **notebook_variables(environment),
        "PYTHONPATH": str(sources),
        "DEVGW_USER": "alice",
        "DEVGW_ENVIRONMENT": "alice+proj",
    }
    variables |= {"JUPYTER_RUNTIME_DIR": str(folder / "tmp"), "JUPYTER_TOKEN": "open sesame"}
    log = folder / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [*notebook_command(environment), "--allow-root"],
            env=variables,
            cwd=environment.home,
            stdout=output,
            stderr=output,
        ) as process,
    ):
        wait_for_socket(environment.notebook_socket, process, log)
        with open_door(environment.notebook_socket) as base:
            yield Server(base, folder / "env" / "notebook_password", log, folder / "home")
        process.terminate()


def wait_for_socket(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until the server listens."""
    deadline = time.monotonic() + 30
    while not path.is_socket():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.mark.slow
def test_right_password_opens_the_notebook(server: Server) -> None:
    """The password whose hash lies in the file logs in."""
    server.set_password_file(make_hash("right") + "\n")
    browser = NotebookClient(server.base)
    browser.login("right")
    assert browser.is_logged_in()


def page_config(server: Server) -> dict[str, Any]:
    """What JupyterLab's page is told, for somebody who has logged in."""
    server.set_password_file(make_hash("right"))
    browser = NotebookClient(server.base)
    browser.login("right")
    page = browser.http.get(f"{server.base}/lab", timeout=60)
    found = re.search(r'<script id="jupyter-config-data"[^>]*>(.*?)</script>', page.text, re.DOTALL)
    assert found, page.text[:500]
    return cast("dict[str, Any]", json.loads(found[1]))


@pytest.mark.slow
def test_nobody_is_asked_about_news(server: Server) -> None:
    """The plugin that asks is disabled on the page; a setting alone would not keep it from asking."""
    assert "@jupyterlab/apputils-extension:announcements" in page_config(server)["disabledExtensions"]


@pytest.mark.slow
def test_a_page_says_whose_notebook_it_is(server: Server) -> None:
    """The login form, also after a refusal, and the tab's title: two tunnels may have led a browser elsewhere."""
    form = requests.get(f"{server.base}/login", timeout=30)
    assert "The notebook of alice+proj." in form.text
    assert "The notebook of alice+proj." in server.try_login("wrong").text
    assert page_config(server)["appName"] == "JupyterLab of alice+proj"


@pytest.mark.slow
def test_a_kernel_has_what_the_profile_exports(server: Server) -> None:
    """As the user's SSH sessions have it, whatever the file prints, and where it fails."""
    server.set_password_file(make_hash("right"))
    profile = server.home / ".profile"
    browser = NotebookClient(server.base)
    browser.login("right")
    code = "import os; print(os.environ.get('FROM_PROFILE'), os.getcwd(), os.environ['HOME'])"
    for value in ("one", "two words = and\nanother line"):
        profile.write_text(f"echo a greeting\nexport FROM_PROFILE='{value}'\n")
        assert browser.execute(code) == f"{value} {server.home} {server.home}\n"
    profile.write_text("exit 3\n")
    assert browser.execute(code) == f"None {server.home} {server.home}\n"


@pytest.mark.slow
def test_a_restarted_kernel_has_what_the_profile_exports_now(server: Server) -> None:
    """Nothing is left of what it exported before."""
    server.set_password_file(make_hash("right"))
    profile = server.home / ".profile"
    browser = NotebookClient(server.base)
    browser.login("right")
    profile.write_text("export BEFORE=1\n")
    with browser.kernel() as kernel:
        code = "import os; print(os.environ.get('BEFORE'), os.environ.get('AFTER'))"
        assert browser.run_cell(kernel, code) == "1 None\n"
        profile.write_text("export AFTER=2\n")
        browser.restart(kernel)
        assert browser.run_cell(kernel, code) == "None 2\n"


@pytest.mark.slow
def test_wrong_password_is_refused_and_logged(server: Server) -> None:
    """A wrong password is refused, and the log says so without it."""
    server.set_password_file(make_hash("right"))
    with pytest.raises(LoginRefusedError):
        NotebookClient(server.base).login("not-it-at-all")
    assert "wrong password" in server.log.read_text()
    assert "not-it-at-all" not in server.log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "\n",
        "right",
        "$2b$04$short",
        "$2y$" + make_hash("right")[4:],
        make_hash("right")[:-1] + "!",
        make_hash("right") + "\n" + make_hash("other"),
        "argon2:$argon2id$v=19$m=10240,t=10,p=8$c2FsdA$aGFzaA",
        "\N{SNOWMAN}",
    ],
    ids=[
        "absent",
        "empty",
        "a blank line",
        "plain text",
        "cut off",
        "of another kind",
        "not base64",
        "two",
        "argon2",
        "not ASCII",
    ],
)
def test_unusable_password_file_lets_nobody_in(server: Server, content: str | None) -> None:
    """A missing, empty or malformed hash is a closed door, never an open one."""
    server.set_password_file(content)
    for password in ("right", "", "open sesame"):
        answer = server.try_login(password)
        assert answer.status_code == 401
        assert NO_PASSWORD.split(":")[0] in answer.text.replace("&#39;", "'")
    assert requests.get(f"{server.base}/api/contents", timeout=30).status_code == 403


@pytest.mark.slow
def test_too_long_password_is_refused_with_the_reason(server: Server) -> None:
    """Bytes after the 72nd would not count, so such a password is refused as a whole."""
    server.set_password_file(make_hash("a" * 72))
    assert server.try_login("a" * 72).status_code == 302
    answer = server.try_login("a" * 73)
    assert answer.status_code == 401
    assert TOO_LONG in answer.text
    assert server.try_login("\N{LATIN SMALL LETTER E WITH ACUTE}" * 37).status_code == 401


@pytest.mark.slow
@pytest.mark.parametrize("way", ["header", "query"])
def test_no_token_opens_anything(server: Server, way: str) -> None:
    """Neither the user's settings file nor a variable can bring a token into being."""
    server.set_password_file(make_hash("right"))
    url = f"{server.base}/api/kernels"
    for token in ("open sesame", ""):
        if way == "header":
            answer = requests.get(url, headers={"Authorization": f"token {token}"}, timeout=30)
        else:
            answer = requests.get(url, params={"token": token}, timeout=30)
        assert answer.status_code == 403


@pytest.mark.slow
def test_changed_password_ends_old_logins(server: Server) -> None:
    """A cookie is worth as much as the password it was earned with; the old password back, so is the cookie."""
    old = make_hash("old")
    server.set_password_file(old)
    browser = NotebookClient(server.base)
    browser.login("old")
    cookies = browser.http.cookies.copy()
    server.set_password_file(make_hash("new"))
    assert not browser.is_logged_in()
    browser.http.cookies = cookies
    server.set_password_file(None)
    assert not browser.is_logged_in()


@pytest.mark.slow
def test_guessing_does_not_slow_those_who_are_logged_in(server: Server) -> None:
    """While wrong guesses wait, another browser's requests are answered at once."""
    server.set_password_file(make_hash("right"))
    browser = NotebookClient(server.base)
    browser.login("right")
    guess = (
        "import requests, sys; s = requests.Session(); b = sys.argv[1]; s.get(b + '/login');"
        "[s.post(b + '/login', data={'password': 'no', '_xsrf': s.cookies['_xsrf']}) for _ in range(4)]"
    )
    started = time.monotonic()
    guessers = [subprocess.Popen([sys.executable, "-c", guess, server.base], env={**os.environ}) for _ in range(2)]
    waits = []
    while any(guesser.poll() is None for guesser in guessers) and time.monotonic() - started < 6:
        before = time.monotonic()
        assert browser.is_logged_in()
        waits.append(time.monotonic() - before)
        time.sleep(0.05)
    for guesser in guessers:
        guesser.kill()
        guesser.wait(timeout=60)
    assert time.monotonic() - started > 1.5
    assert sorted(waits)[len(waits) // 2] < 0.3


def test_provider_always_asks_for_a_login(tmp_path: Path) -> None:
    """Jupyter takes `auth_enabled = False` as leave for anonymous access; ours never says so."""
    provider = DevgwIdentityProvider(password_file=str(tmp_path / "missing"), token="x", hashed_password="y")
    assert provider.auth_enabled
    assert provider.token == ""
    assert not provider.allow_password_change
    assert provider.process_login_form(None) is None


def test_hash_is_read_from_a_regular_line_only(tmp_path: Path) -> None:
    """What is longer than a hash, or not one, is no hash."""
    file = tmp_path / "notebook_password"
    file.write_text(make_hash("x") + "\n")
    assert read_hash(file) is not None
    file.write_text(make_hash("x") * 5)
    assert read_hash(file) is None
    assert read_hash(tmp_path) is None
