"""A browser's part against a real notebook server: the login form, then a kernel over its websocket."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import requests
import websocket

_TIMEOUT_SECONDS = 60


class LoginRefusedError(Exception):
    """The server did not take the password."""


@dataclass
class NotebookClient:
    """One browser session. `base` is like http://localhost:8888."""

    base: str
    http: requests.Session = field(default_factory=requests.Session)

    def login(self, password: str) -> None:
        """Send the login form. Raises: LoginRefusedError."""
        self.http.trust_env = False
        self.http.get(f"{self.base}/login", timeout=_TIMEOUT_SECONDS)
        form = {"password": password, "_xsrf": self.http.cookies.get("_xsrf", "")}
        answer = self.http.post(f"{self.base}/login", data=form, allow_redirects=False, timeout=_TIMEOUT_SECONDS)
        if answer.status_code != requests.codes.found or not self.is_logged_in():
            raise LoginRefusedError(f"the server answered {answer.status_code}")

    def is_logged_in(self) -> bool:
        """Say whether this session may use the API now."""
        answer = self.http.get(f"{self.base}/api/kernels", timeout=_TIMEOUT_SECONDS)
        return bool(answer.status_code == requests.codes.ok)

    def execute(self, code: str) -> str:
        """Start a kernel, run one cell, stop the kernel; return what it printed and its result."""
        with self.kernel() as kernel:
            return self.run_cell(kernel, code)

    @contextmanager
    def kernel(self) -> Iterator[str]:
        """Start a kernel; yield its id, and stop it."""
        kernel = str(self._post("api/kernels")["id"])
        try:
            yield kernel
        finally:
            self.http.delete(f"{self.base}/api/kernels/{kernel}", headers=self._headers(), timeout=_TIMEOUT_SECONDS)

    def restart(self, kernel: str) -> None:
        """Restart a kernel, as the button does."""
        self._post(f"api/kernels/{kernel}/restart")

    def _headers(self) -> dict[str, str]:
        return {"X-XSRFToken": self.http.cookies.get("_xsrf", "")}

    def _post(self, path: str) -> dict[str, object]:
        answer = self.http.post(f"{self.base}/{path}", json={}, headers=self._headers(), timeout=_TIMEOUT_SECONDS)
        answer.raise_for_status()
        return dict(answer.json())

    def run_cell(self, kernel: str, code: str) -> str:
        """Run one cell; return what it printed and its result."""
        url = self.base.replace("http://", "ws://") + f"/api/kernels/{kernel}/channels"
        cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.http.cookies)
        channel = websocket.create_connection(url, cookie=cookies, timeout=_TIMEOUT_SECONDS)
        try:
            request_id = uuid.uuid4().hex
            channel.send(json.dumps(_execute_request(request_id, code)))
            return _collect_output(channel, request_id)
        finally:
            channel.close()


def _execute_request(request_id: str, code: str) -> dict[str, object]:
    header = {
        "msg_id": request_id,
        "msg_type": "execute_request",
        "username": "",
        "session": request_id,
        "version": "5.3",
    }
    content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False, "user_expressions": {}}
    return {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content}


def _collect_output(channel: websocket.WebSocket, request_id: str) -> str:
    output: list[str] = []
    while True:
        message = json.loads(channel.recv())
        if message.get("parent_header", {}).get("msg_id") != request_id:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            output.append(content["text"])
        elif kind == "execute_result":
            output.append(content["data"]["text/plain"])
        elif kind == "error":
            output.append("\n".join(content["traceback"]))
        elif kind == "status" and content["execution_state"] == "idle":
            return "".join(output)
