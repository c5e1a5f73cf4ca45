"""A gateway with its page, and a browser without JavaScript that comes through a real `ssh -L`.

The gateway is whole but for its environments: their rows are there, and no engine makes them.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import requests
from sqlalchemy import insert

from gateway.store.database import Database
from gateway.store.schema import ENVIRONMENTS
from tests.support.gateway_process import GatewayProcess

POLICY = """
version = 1
default_roles = ["member"]
[roles.member]
sessions = ["shell", "exec", "sftp"]
permit_open = "any-loopback"
images = ["*"]
max_memory = "64GiB"
max_cpus = 64
max_environments = 5
max_gpus = 2
[roles.auditor]
page = "auditor"
[roles.administrator]
page = "admin"
[roles.no-page]
deny.permit_open = ["devgw:80"]
[[grants]]
users = ["bob"]
roles = ["member", "auditor"]
[[grants]]
users = ["carol"]
roles = ["member", "administrator"]
[[grants]]
users = ["mallory"]
roles = ["member", "administrator", "no-page"]
"""
USERS = ("alice", "bob", "carol", "mallory")
ANSWER_SECONDS = 60
_TOKEN = re.compile(r'name="form_token" value="([0-9a-f]{64})"')


def begin(root: Path, users: tuple[str, ...] = USERS, policy: str = POLICY, **variables: str) -> GatewayProcess:
    """Return a gateway that serves: each user has a key and a stopped environment."""
    gateway = GatewayProcess(root, {"DEVGW_ENGINE_KIND": "bubblewrap", "DEVGW_GPUS_INVENTORY": "none"} | variables)
    gateway.devgw("init")
    (root / "etc" / "policy.toml").write_text(policy)
    add(gateway, *users)
    gateway.serve()
    return gateway


def add(gateway: GatewayProcess, *handles: str, **columns: object) -> None:
    """Write users with a key, and an environment of each handle, as `devgw create` would."""
    from gateway.auth.keys import parse_public_key
    from gateway.environments.layout import Layout
    from gateway.model import EnvironmentRef, UserName
    from gateway.store.users import Users

    database = Database(f"sqlite:///{gateway.root / 'state' / 'devgw.db'}")
    users = Users(database)
    row = {
        "engine": "bubblewrap", "image": "devgw/env:cpu", "memory_bytes": 8 << 30, "cpus": 4.0, "pids": 512,
        "shm_bytes": 1 << 30, "gpu_request": "0", "datasets": [], "egress": "none", "should_run": False,
        "state": "stopped", "created_at": datetime.now(UTC), "detail": "",
    }  # fmt: skip
    for handle in handles:
        user, _, name = handle.partition("+")
        if users.get(user) is None:
            users.ensure(UserName(user), uid_start=gateway.uid_start)
            line = Path(f"{gateway.make_key(user)}.pub").read_text()
            users.add_key(UserName(user), parse_public_key(line))
        with database.transaction() as connection:
            connection.execute(insert(ENVIRONMENTS).values(**(row | {"user": user, "name": name or "main"} | columns)))
        uid = users.require(user).uid
        Layout.of(gateway.root / "state", EnvironmentRef.parse(handle)).make(uid, uid)


def use(gateway: GatewayProcess, handle: str, *hours: tuple[float, int]) -> None:
    """Write what an environment used in the last hours, oldest first: processors on average, the peak of its memory."""
    from gateway.model import EnvironmentRef
    from gateway.store.load import LoadSample, LoadTable

    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    LoadTable(Database(f"sqlite:///{gateway.root / 'state' / 'devgw.db'}")).add(
        [
            LoadSample(EnvironmentRef.parse(handle), now - timedelta(hours=ago), 3600.0, processors * 3600, memory)
            for ago, (processors, memory) in enumerate(reversed(hours))
        ]
    )


def records(gateway: GatewayProcess, code: str) -> list[dict[str, Any]]:
    """Return the journal's events of one code."""
    lines = gateway.devgw("audit", "log", "--action", code, "-o", "json").stdout.splitlines()
    return [json.loads(line) for line in lines]


@dataclass
class Browser:
    """One browser at one tunnel's end."""

    port: int
    session: requests.Session = field(default_factory=requests.Session)
    host: str = "localhost"

    @property
    def origin(self) -> str:
        return f"http://{self.host}:{self.port}"

    def get(
        self, path: str = "/", *, follow: bool = True, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        """Ask for a page as one types its address."""
        sent = {"Sec-Fetch-Site": "none"} | dict(headers or {})
        return self.session.get(self.origin + path, headers=sent, allow_redirects=follow, timeout=ANSWER_SECONDS)

    def post(
        self, path: str, *, follow: bool = True, headers: Mapping[str, str] | None = None, **fields: str
    ) -> requests.Response:
        """Send a form of this page, its token included unless the fields say another."""
        sent = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin"} | dict(headers or {})
        fields = {"form_token": self.form_token()} | fields
        return self.session.post(
            self.origin + path, data=fields, headers=sent, allow_redirects=follow, timeout=ANSWER_SECONDS
        )

    def form_token(self) -> str:
        """Read the token from a page with a form."""
        found = _TOKEN.search(self.get("/").text)
        return found[1] if found else ""


@contextmanager
def browser(gateway: GatewayProcess, user: str) -> Iterator[Browser]:
    """Hold `ssh -N -L PORT:devgw:80` open; yield a browser at its end."""
    with gateway.tunnel(user, "devgw:80") as port, requests.Session() as session:
        session.trust_env = False
        yield Browser(port, session)


def fill(gateway: GatewayProcess, count: int, first: int = 0) -> None:
    """Write so many users with a stopped environment each, at once; their names are counted from `first`."""
    from gateway.store.schema import USERS

    now = datetime.now(UTC)
    names = [f"w{number:05}" for number in range(first, first + count)]
    row = {
        "engine": "bubblewrap", "image": "devgw/env:cpu", "memory_bytes": 1 << 30, "cpus": 1.0, "pids": 64,
        "shm_bytes": 1 << 20, "gpu_request": "0", "datasets": [], "egress": "none", "should_run": False,
        "state": "stopped", "created_at": now, "detail": "", "name": "main",
    }  # fmt: skip
    with Database(f"sqlite:///{gateway.root / 'state' / 'devgw.db'}").transaction() as connection:
        users = [{"name": name, "uid": 3_000_000 + place, "created_at": now} for place, name in enumerate(names, first)]
        connection.execute(insert(USERS), users)
        connection.execute(insert(ENVIRONMENTS), [row | {"user": name} for name in names])
