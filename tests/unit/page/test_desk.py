"""What the process with the gateway's rights answers: to whom, by whose word, and what it says when it does not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.app.composition import App
from gateway.config import Settings
from gateway.model import Fingerprint, PublicKey, UserName
from gateway.page.claim import Claim, Seal
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.desk import Desk
from gateway.page.desk.site import Asker, Site
from policies.requests import Subject
from tests.support.gateway_process import poll

KEY = PublicKey(Fingerprint("SHA256:abc"), "ssh-ed25519", 256, "ssh-ed25519 AAAA")
SUBJECT = Subject("alice", "192.0.2.7", "ssh-ed25519", 256, "SHA256:abc")
answers = Answers()


@answers.to("test.who")
def who(site: Site, asker: Asker) -> str:
    return f"{asker.user} {asker.level}"


@answers.to("test.act", journaled=True)
def act(site: Site, asker: Asker) -> str:
    return "done"


@answers.to("test.all", level="auditor")
def everybody(site: Site, asker: Asker, broken: bool = False) -> str:
    if broken:
        raise ZeroDivisionError
    return "everybody's"


class Trial:
    """A desk of a gateway that does not serve."""

    def __init__(self, root: Path) -> None:
        self.app = App(Settings(config_dir=root, state_dir=root, run_dir=root / "run", cache_dir=root))
        (root / "policy.toml").write_text(
            "version = 1\ndefault_roles = ['m']\n[roles.m]\nsessions = ['shell']\n[roles.a]\npage = 'auditor'\n"
            "[[grants]]\nusers = ['bob']\nroles = ['m', 'a']\n"
        )
        self.seal = Seal(self.app.settings.page_seal)
        self.desk = Desk(self.app, self.seal, answers.known)
        for name in ("alice", "bob"):
            self.app.users.ensure(UserName(name), uid_start=200_000)
        self.app.users.add_key(UserName("alice"), KEY)

    def ask(self, question: str, claim: str = "", *, live: bool = False, **values: Any) -> dict[str, Any]:
        line = claim or self.seal.line(Claim(SUBJECT, "alice", "0a1b")).decode()
        return dict(self.desk.answer({"number": 7, "claim": line, "ask": question, "values": values, "live": live}))

    def code(self, question: str, claim: str = "", *, live: bool = False, **values: Any) -> tuple[str, int]:
        fault = self.ask(question, claim, live=live, **values)["fault"]
        return fault["code"], fault["status"]


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    made = Trial(tmp_path)
    yield made
    made.app.journal.close()


def test_a_user_is_answered_as_who_they_are(trial: Trial) -> None:
    assert trial.ask("test.who") == {"number": 7, "answer": "alice user"}


@pytest.mark.attack("F9", "a page that stays open when its user is shut out, or their key is taken")
def test_who_is_shut_out_or_lost_the_key_is_answered_nothing_more(trial: Trial) -> None:
    """From the moment that the database says so, whatever the connection still does."""
    trial.app.users.set_disabled(UserName("alice"), disabled=True)
    assert trial.code("test.who") == ("page.no-user", 403)
    trial.app.users.set_disabled(UserName("alice"), disabled=False)
    assert "answer" in trial.ask("test.who")
    trial.app.users.remove_key(UserName("alice"), "SHA256:abc")
    assert trial.code("test.who") == ("page.no-key", 403)
    trial.app.users.forget(UserName("alice"))
    assert trial.code("test.who") == ("page.no-user", 403)


@pytest.mark.attack("F9", "an act that says it is a live part, by somebody who is shut out")
def test_a_live_part_may_be_a_second_behind_and_nothing_else(trial: Trial) -> None:
    """All else is decided by the users of this moment, an act that calls itself live included."""
    assert trial.ask("test.who", live=True) == {"number": 7, "answer": "alice user"}
    trial.app.users.set_disabled(UserName("alice"), disabled=True)
    assert trial.code("test.who") == ("page.no-user", 403)
    assert trial.code("test.act", live=True) == ("page.no-user", 403)
    poll(lambda: "fault" in trial.ask("test.who", live=True), "the end of the live part")
    assert trial.code("test.who", live=True) == ("page.no-user", 403)


@pytest.mark.attack("J6", "a claim with another name, seal or form, given to the process with the gateway's rights")
def test_a_claim_without_the_seal_is_answered_nothing(trial: Trial) -> None:
    line = trial.seal.line(Claim(SUBJECT, "alice", "0a1b")).decode()
    for forged in (line.replace(".", ".0", 1), "x" + line, line[:-3], "nonsense"):
        assert trial.code("test.who", forged) == ("page.bad-claim", 403)


@pytest.mark.emits("page.denied")
def test_a_level_is_asked_for_here_whatever_the_other_process_thinks(trial: Trial) -> None:
    assert trial.code("test.all") == ("policy.denied", 403)


def test_what_is_not_asked_well_is_refused_and_what_breaks_is_said_with_a_reference(trial: Trial) -> None:
    assert trial.code("test.nothing") == ("page.no-answer", 404)
    assert trial.code("test.who", other=1) == ("page.bad-question", 400)
    trial.app.users.add_key(UserName("bob"), PublicKey(Fingerprint("SHA256:bob"), "ssh-ed25519", 256, "ssh-ed25519 B"))
    bob = trial.seal.line(Claim(Subject("bob", "", "ssh-ed25519", 256, "SHA256:bob"), "bob", "0a1b")).decode()
    assert trial.ask("test.all", bob)["answer"] == "everybody's"
    assert trial.code("test.all", bob, broken=True) == ("internal", 500)
