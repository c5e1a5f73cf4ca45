"""Assertions a policy makes about itself: who must and who must not be allowed what. `run` asks them."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field

from policies.document import Table
from policies.keys import KeyType
from policies.policy_tests.questions import parse_question
from policies.requests import Subject

ANY_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)
"""What stands in for the time where an answer does not depend on it."""

ALGORITHMS: dict[KeyType, str] = {
    "ed25519": "ssh-ed25519",
    "sk-ed25519": "sk-ssh-ed25519@openssh.com",
    "ecdsa": "ecdsa-sha2-nistp256",
    "sk-ecdsa": "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa": "ssh-rsa",
}
"""One OpenSSH algorithm for each kind of key, to ask as if with such a key."""


def _check_question(text: str) -> str:
    parse_question(text, Subject("nobody"), ANY_MOMENT)
    return text


Question = Annotated[str, AfterValidator(_check_question)]


class Assertion(Table):
    """One `[[tests]]` table, in the words of `devgw policy explain`."""

    user: str
    """Who asks. A name that no grant lists stands for everyone with the default roles."""
    at: AwareDatetime | None = None
    """When. Needed where the user's roles depend on the time: a test must give the same answer on every day."""
    address: str = ""
    """From where; empty: from an address that every role accepts."""
    key_type: KeyType = "ed25519"
    """With what kind of key."""
    key_bits: Annotated[int, Field(ge=0)] = 4096
    """With an RSA key of how many bits."""
    certificate: bool = False
    """With a certificate of a CA that the roles accept."""
    allow: tuple[Question, ...] = ()
    """Questions that must be allowed."""
    deny: tuple[Question, ...] = ()
    """Questions that must be denied."""
    reason: str = ""
    """Why this matters; printed when it fails."""

    @property
    def subject(self) -> Subject:
        return Subject(self.user, self.address, ALGORITHMS[self.key_type], self.key_bits)
