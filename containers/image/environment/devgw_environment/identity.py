"""Who may use the notebook: whoever knows the password whose bcrypt hash the gateway keeps in the mounted folder.

The hash is read at every login and each cookie is bound to the hash it was earned with, so a new password counts
at once.
"""

import asyncio
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import bcrypt
from jupyter_server.auth.decorator import allow_unauthenticated
from jupyter_server.auth.identity import PasswordIdentityProvider, User
from jupyter_server.auth.login import LoginFormHandler
from traitlets import Type, Unicode

from devgw_environment.contract import Environment
from devgw_environment.refusals import note_refusal
from devgw_environment.throttle import GuessThrottle, TooManyGuesses

LONGEST_PASSWORD_BYTES = 72  # bcrypt ignores, or since bcrypt 5.0 refuses, what comes after
HASH = re.compile(r"\$2b\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}")

WRONG = "Wrong password."
TOO_LONG = f"A password has at most {LONGEST_PASSWORD_BYTES} bytes."
NO_PASSWORD = "No notebook password is set. Ask for one: 'devgw passwd'."  # noqa: S105 - a message
TOO_MANY = "Too many attempts at once. Wait a moment and try again."


def read_hash(file: Path) -> str | None:
    """The bcrypt hash in the file; None, which lets nobody in, when it is missing, empty or anything else."""
    try:
        with file.open("rb") as opened:
            text = opened.read(256).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if HASH.fullmatch(text) else None


def fingerprint(stored: str) -> str:
    """What a cookie carries of the hash: enough to notice a change, nothing to guess with (the salt is unknown)."""
    return hashlib.sha256(b"devgw notebook cookie\0" + stored.encode()).hexdigest()[:32]


def environment_name() -> str:
    """Return `alice`, or `alice+proj` for a named environment."""
    return os.environ.get("DEVGW_ENVIRONMENT") or os.environ.get("DEVGW_USER") or os.environ.get("USER") or "user"


class DevgwLoginHandler(LoginFormHandler):
    """The login form; differs from Jupyter's by waiting its turn, saying why it refused, and whose notebook it is."""

    def _render(self, message: dict[str, str] | None = None) -> None:
        """Name the environment: with several tunnels a browser may not be where its user believes."""
        super()._render(message={"info": f"The notebook of {environment_name()}.", **(message or {})})

    @allow_unauthenticated
    async def post(self) -> None:
        """Check the typed password and set the cookie."""
        provider: DevgwIdentityProvider = self.identity_provider
        refusal = await provider.check_password(self.get_argument("password", default="", strip=False))
        if refusal is not None:
            self.set_status(429 if refusal == TOO_MANY else 401)
            self._render(message={"error": refusal})
            return
        user = self.current_user = provider.make_user()
        self.log.info("Notebook login of %s", user.username)
        provider.set_login_cookie(self, user)
        self._redirect_safe(self.get_argument("next", default=self.base_url))


class DevgwIdentityProvider(PasswordIdentityProvider):
    """Password login against the mounted hash; no token, no anonymous access, no password change from the browser."""

    login_handler_class = Type(default_value=DevgwLoginHandler, klass=LoginFormHandler)
    password_file = Unicode(help="File with one line, a bcrypt hash; by the contract in the environment's folder.").tag(
        config=True
    )

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.throttle = GuessThrottle()
        # Whatever a settings file says: the hash is the only key.
        self.token = ""
        self.hashed_password = ""
        self.allow_password_change = False
        if not self.password_file:
            folder = os.environ.get("DEVGW_CONFIG_FOLDER", "/etc/devgw/env")
            self.password_file = str(Path(folder) / "notebook_password")

    @property
    def auth_enabled(self) -> bool:
        """Always: without a password nobody gets in, rather than everybody."""
        return True

    async def check_password(self, typed: str) -> str | None:
        """Check a password against the hash of this moment; None when right, else why not, fit for the login page."""
        if len(typed.encode()) > LONGEST_PASSWORD_BYTES:
            return TOO_LONG
        try:
            async with self.throttle.guess():
                return await self._compare(typed)
        except TooManyGuesses:
            note_refusal(Environment.from_process().scratch)
            self.log.warning("Notebook login refused: too many attempts at once")
            return TOO_MANY

    async def _compare(self, typed: str) -> str | None:
        stored = read_hash(Path(self.password_file))
        if stored is None:
            self.log.error("Notebook login refused: %s holds no bcrypt hash", self.password_file)
            return NO_PASSWORD
        # In a thread: bcrypt takes tens of milliseconds and lets go of the interpreter lock meanwhile.
        correct = await asyncio.to_thread(bcrypt.checkpw, typed.encode(), stored.encode())
        self.throttle.note(correct)
        if not correct:
            note_refusal(Environment.from_process().scratch)
            self.log.warning("Notebook login failed: wrong password (%d in a row)", self.throttle.failures)
        return None if correct else WRONG

    def make_user(self) -> User:
        """The environment's user, who is the only one."""
        name = os.environ.get("DEVGW_USER") or os.environ.get("USER") or "user"
        return User(name, name, name, name[:2].upper(), None, None)

    def process_login_form(self, handler: Any) -> User | None:
        """Nobody: logins go through `DevgwLoginHandler`, which can wait."""
        del handler
        return None

    def passwd_check(self, password: str) -> bool:
        """Never: Jupyter's own check knows nothing of the throttle."""
        del password
        return False

    def get_token(self, handler: Any) -> None:
        """There is no token, so none is looked for in a request."""
        del handler

    async def get_user_token(self, handler: Any) -> None:
        """Nobody is known by a token."""
        del handler

    def user_to_cookie(self, user: User) -> str:
        """The user and the fingerprint of the hash that let them in."""
        stored = read_hash(Path(self.password_file))
        content = json.loads(super().user_to_cookie(user))
        return json.dumps({**content, "password": fingerprint(stored) if stored else ""})

    def user_from_cookie(self, cookie_value: str) -> User | None:
        """The user, as long as the password is still the one they logged in with."""
        stored = read_hash(Path(self.password_file))
        try:
            earned_with = json.loads(cookie_value)["password"]
        except (ValueError, KeyError, TypeError):
            return None
        if stored is None or earned_with != fingerprint(stored):
            return None
        return super().user_from_cookie(cookie_value)
