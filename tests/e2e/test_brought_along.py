"""What people bring along from their own machines means the same inside: locale, terminal, profile, umask, fonts."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator

import pytest
import requests
import websocket

from tests.e2e.conftest import ServedUsers
from tests.support.engine_variables import engine_kind
from tests.support.gateway_process import GatewayProcess
from tests.support.notebook_client import NotebookClient

pytestmark = pytest.mark.engine

TERMINALS = [
    *("alacritty", "foot", "xterm-kitty", "xterm-ghostty", "wezterm", "xterm-256color", "tmux-256color", "mintty"),
    *("screen-256color", "konsole-256color", "gnome-256color", "putty-256color", "st-256color", "rxvt-unicode"),
]
LOCALES = ["en_US.UTF-8", "en_GB.UTF-8", "de_DE.UTF-8", "fr_FR.UTF-8", "pt_BR.UTF-8", "ja_JP.UTF-8", "zh_CN.UTF-8"]
DIFFERENT = (
    "SSH_",
    "JPY_",
    "JUPYTER_",
    "DEVGW_",
    "XDG_",
    "PYDEVD_",
    "PYXTERM_",
    "TERM",
    "SHLVL",
    "PWD",
    "OLDPWD",
    "_",
    "LINES",
    "HOSTNAME",
)
"""Variables that belong to one way in: the connection, the terminal, the notebook server."""
OF_THE_KERNEL = {"COLUMNS", "GIT_PAGER", "PAGER", "CLICOLOR", "CLICOLOR_FORCE", "FORCE_COLOR", "MPLBACKEND", "MAIL"}
SHOW_VARIABLES = "python3 -c 'import json, os; print(json.dumps(dict(os.environ)))'"
SHOW_LOCALE = "import locale as l; l.setlocale(l.LC_ALL, ''); print(l.setlocale(l.LC_CTYPE), l.nl_langinfo(l.CODESET))"

PLOT = """
import matplotlib.pyplot as plt
plt.plot([1, 2])
plt.title("损失 損失 손실 loss")
plt.savefig("/tmp/plot.png")
print("plotted")
"""


@pytest.fixture(scope="module")
def brought(served_users: ServedUsers) -> Iterator[GatewayProcess]:
    """Bob, with a profile of his own."""
    gateway = served_users.gateway
    profile = b"echo hello from the profile\nexport FROM_PROFILE='two words' PATH=$HOME/tools:$PATH\n"
    assert gateway.ssh("bob", "cat > .profile; rm -f .bash_profile", stdin=profile).returncode == 0
    yield gateway
    gateway.ssh("bob", "rm .profile")


@pytest.fixture(scope="module")
def browser(served_users: ServedUsers, brought: GatewayProcess) -> Iterator[NotebookClient]:
    with brought.tunnel("bob") as port:
        client = NotebookClient(f"http://localhost:{port}")
        client.login(served_users.passwords["bob"])
        yield client


def comparable(text: str) -> dict[str, str]:
    variables = json.loads(text[text.index("{") : text.rindex("}") + 1])
    return {
        name: value for name, value in variables.items() if not name.startswith(DIFFERENT) and name not in OF_THE_KERNEL
    }


def session_variables(gateway: GatewayProcess) -> dict[str, str]:
    """Those of a login by terminal, as a person has it."""
    command = gateway.ssh_command("bob")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "TZ"))}
    typed = f"stty -echo; {SHOW_VARIABLES}; exit\n".encode()
    command.insert(1, "-tt")
    done = subprocess.run(command, env=clean, input=typed, capture_output=True, timeout=120, check=False)
    return comparable(done.stdout.decode())


def terminal_variables(browser: NotebookClient) -> dict[str, str]:
    """Those of a terminal of the notebook."""
    headers = {"X-XSRFToken": browser.http.cookies.get("_xsrf", "")}
    made = browser.http.post(f"{browser.base}/api/terminals", headers=headers, timeout=60).json()["name"]
    url = browser.base.replace("http://", "ws://") + f"/terminals/websocket/{made}"
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.http.cookies)
    channel = websocket.create_connection(url, cookie=cookies, timeout=60)
    mark = uuid.uuid4().hex
    shown = ""
    try:
        channel.send(json.dumps(["stdin", f"stty -echo cols 30000; {SHOW_VARIABLES}; echo {mark[:9]}''{mark[9:]}\r"]))
        while mark not in shown:
            kind, *content = json.loads(channel.recv())
            shown += content[0] if kind == "stdout" else ""
    finally:
        channel.close()
        browser.http.delete(f"{browser.base}/api/terminals/{made}", headers=headers, timeout=60)
    return comparable(shown)


@pytest.mark.parametrize("terminal", TERMINALS)
def test_a_terminal_of_today_is_known(brought: GatewayProcess, terminal: str) -> None:
    """So that editors, less and tmux start in it."""
    done = brought.ssh("bob", f"infocmp {terminal} >/dev/null && tput -T {terminal} cup 3 4 | wc -c")
    assert (done.returncode, done.stderr) == (0, b"")
    assert int(done.stdout) > 3


@pytest.mark.parametrize("locale", [*LOCALES, "C.UTF-8"])
def test_a_common_locale_is_there(brought: GatewayProcess, locale: str) -> None:
    """Its letters and its order, in programs of C and in Python; bubblewrap's environments have what the host has."""
    host = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=True, timeout=60).stdout.lower()
    if engine_kind() == "bubblewrap" and locale.lower().replace("-", "") not in host.split():
        locale = "C.UTF-8"
    done = brought.ssh("bob", f'export LC_ALL={locale}; bash -c true; python3 -c "{SHOW_LOCALE}"')
    assert (done.stdout.decode().split(), done.stderr) == ([locale, "UTF-8"], b"")


@pytest.mark.docker
def test_the_letters_of_macos_are_there(brought: GatewayProcess) -> None:
    """Its terminal sends LC_CTYPE=UTF-8, which is no name of a locale on Linux."""
    done = brought.ssh("bob", f'export LANG= LC_CTYPE=UTF-8; bash -c true; python3 -c "{SHOW_LOCALE}"')
    assert b"UTF-8" in done.stdout
    assert done.stderr == b""


def test_session_kernel_and_terminal_have_the_same_variables(brought: GatewayProcess, browser: NotebookClient) -> None:
    """Those of ~/.profile among them; all three stand in the home."""
    session = session_variables(brought)
    assert session["FROM_PROFILE"] == "two words"
    assert session["PATH"].startswith(f"{session['HOME']}/tools:")
    kernel = comparable(browser.execute("import json, os; print(json.dumps(dict(os.environ)))"))
    assert {name: kernel.get(name) for name in session} == session
    assert terminal_variables(browser) == session
    assert browser.execute("import os; print(os.getcwd(), oct(os.umask(0o022)))").split() == [session["HOME"], "0o22"]


def test_a_first_plot_prints_nothing_but_its_answer(brought: GatewayProcess, browser: NotebookClient) -> None:
    """No word of Fontconfig, whose configuration an environment lacked, nor of a letter without a glyph."""
    assert brought.ssh("bob", "rm -rf .cache/matplotlib .config/matplotlib").returncode == 0
    said = browser.execute(PLOT).replace("Matplotlib is building the font cache; this may take a moment.", "")
    assert said.split() == ["plotted"]
    done = brought.ssh("bob", "command -v fc-list >/dev/null && fc-list 2>&1 >/dev/null; true")
    assert done.stdout == b""


def test_the_login_page_says_whose_notebook_it_is(brought: GatewayProcess) -> None:
    """Two tunnels with one local port lead to the first one's environment."""
    with brought.tunnel("bob") as port:
        page = requests.get(f"http://localhost:{port}/login", timeout=60).text
    assert "The notebook of bob." in page
