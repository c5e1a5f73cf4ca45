"""The main job: an SSH tunnel, the notebook's login page, a kernel that runs a cell."""

import pytest

from tests.e2e.conftest import ServedUsers
from tests.support.notebook_client import LoginRefusedError, NotebookClient

pytestmark = pytest.mark.engine


def test_tunnel_and_password_give_a_kernel_that_runs_a_cell(served_users: ServedUsers):
    """`ssh -L 8888:localhost:8888 alice@gateway`, the password, and code runs as alice in her environment."""
    with served_users.gateway.tunnel("alice") as port:
        browser = NotebookClient(f"http://localhost:{port}")
        browser.login(served_users.passwords["alice"])
        answer = browser.execute("import torch, getpass; print(getpass.getuser(), int(torch.arange(10).sum()))")
    assert answer.split() == ["alice", "45"]


def test_wrong_password_and_another_users_password_open_nothing(served_users: ServedUsers):
    """The form is refused, and the API stays shut without a login."""
    with served_users.gateway.tunnel("alice") as port:
        browser = NotebookClient(f"http://localhost:{port}")
        assert not browser.is_logged_in()
        for password in ("wrong", "", served_users.passwords["bob"]):
            with pytest.raises(LoginRefusedError):
                browser.login(password)


def test_passwd_takes_effect_without_a_restart(served_users: ServedUsers):
    """The old password ends at once, the new one works, and the container is the same one."""
    gateway = served_users.gateway
    before = gateway.ssh("bob", "cat /proc/1/stat | cut -d' ' -f22").stdout
    gateway.devgw("passwd", "bob", "--password-stdin", stdin="a new password of bob's\n")
    with gateway.tunnel("bob") as port:
        with pytest.raises(LoginRefusedError):
            NotebookClient(f"http://localhost:{port}").login(served_users.passwords["bob"])
        NotebookClient(f"http://localhost:{port}").login("a new password of bob's")
    assert gateway.ssh("bob", "cat /proc/1/stat | cut -d' ' -f22").stdout == before
    served_users.passwords["bob"] = "a new password of bob's"


def test_other_loopback_ports_of_ones_own_environment_can_be_forwarded(served_users: ServedUsers):
    """What VS Code and TensorBoard need: any port on the environment's loopback."""
    serve = "python3 -m http.server 6006 --bind 127.0.0.1"
    gateway = served_users.gateway
    gateway.ssh("alice", f"cd /workspace && echo board >index.html && (setsid {serve} >/dev/null 2>&1 &)")
    gateway.ssh("alice", "for i in $(seq 50); do grep -q :1776 /proc/net/tcp && break; sleep 0.1; done")
    with gateway.tunnel("alice", "localhost:6006") as port:
        import urllib.request

        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=20).read() == b"board\n"
