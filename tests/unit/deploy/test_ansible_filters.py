"""The filters of Ansible's role: settings come out as the same in TOML, and the fewest commands make a list true."""

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Settings

ROOT = Path(__file__).parents[3]
_PLACE = ROOT / "deploy/ansible/roles/devgw/filter_plugins/devgw.py"
ONE, TWO = f"ssh-ed25519 AAAA{'b' * 64}", f"ssh-ed25519 AAAA{'c' * 64}"
_SCALARS = st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
_VALUES = st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


def load() -> ModuleType:
    """Return the plugin as Ansible loads it: by its path."""
    spec = importlib.util.spec_from_file_location("devgw_filters", _PLACE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FILTERS = load()


def known(name: str, *lines: str, disabled: bool = False) -> dict[str, Any]:
    """Return a user as `devgw user list -o json` has them."""
    keys = [{"fingerprint": f"SHA256:{line[-1] * 3}", "line": line} for line in lines]
    return {"name": name, "disabled": disabled, "keys": len(keys), "public_keys": keys}


def acts(wanted: list[dict[str, Any]], there: list[dict[str, Any]], *, exclusive: bool = True) -> list[str]:
    found = FILTERS.acts_on_users(wanted, there, exclusive=exclusive)
    return [" ".join([*act["arguments"], *(["<", act["stdin"]] if act["stdin"] else [])]) for act in found]


@given(st.dictionaries(st.text(), _VALUES))
def test_settings_are_read_back_as_they_were_given(settings: dict[str, Any]) -> None:
    """Every name and every text, control characters and quotes among them."""
    assert tomllib.loads(FILTERS.settings_as_toml(settings)) == settings


def test_settings_of_a_site_are_taken_by_devgw() -> None:
    text = FILTERS.settings_as_toml(
        {
            "database_url": "postgresql+psycopg://devgw@db.example.org/devgw",
            "server": {"port": 22, "max_startups": {"begin": 5, "rate_percent": 30, "full": 60}, "macs": ["a-etm"]},
            "datasets": {"imagenet": {"path": "/srv/datasets/imagenet"}},
            "page": {},
        }
    )
    assert text.startswith("# ")
    assert "\n[server]\nport = 22\n" in text
    table = tomllib.loads(text)
    assert table.keys() <= Settings.model_fields.keys()
    assert table["server"]["max_startups"] == {"begin": 5, "rate_percent": 30, "full": 60}


def test_a_setting_without_a_value_is_named() -> None:
    """YAML makes None of a key with nothing behind it, and TOML has no such thing."""
    with pytest.raises(ValueError, match=r"server\.port is None"):
        FILTERS.settings_as_toml({"server": {"port": None}})


def test_a_list_that_is_true_already_asks_for_nothing() -> None:
    """A comment, blanks and the order of keys make no difference."""
    wanted = [
        {"name": "alice", "keys": [f"{TWO} alice@laptop\n", f"  {ONE}"]},
        {"name": "bob", "state": "disabled"},
    ]
    assert acts(wanted, [known("alice", ONE, TWO), known("bob", disabled=True), known("carol", ONE)]) == []


def test_somebody_new_is_made_known_with_every_key() -> None:
    assert acts([{"name": "alice", "keys": [f"{ONE} a", f"{ONE} again", TWO]}], []) == [
        "user add alice",
        f"key add alice - < {ONE} again",
        f"key add alice - < {TWO}",
    ]


def test_a_key_that_is_replaced_is_let_in_before_the_old_one_is_shut_out() -> None:
    """Nobody is without a key in between; without `exclusive` the old one stays."""
    wanted, there = [{"name": "alice", "keys": [TWO]}], [known("alice", ONE)]
    assert acts(wanted, there) == [f"key add alice - < {TWO}", "key remove alice SHA256:bbb"]
    assert acts(wanted, there, exclusive=False) == [f"key add alice - < {TWO}"]


def test_a_door_is_shut_and_opened_by_the_list() -> None:
    there = [known("alice", ONE), known("bob", ONE, disabled=True)]
    wanted = [{"name": "alice", "keys": [ONE], "state": "disabled"}, {"name": "bob", "keys": [ONE]}]
    assert acts(wanted, there) == ["user disable alice", "user enable bob"]
    assert acts([{"name": "dora", "state": "disabled"}], []) == ["user add dora", "user disable dora"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ([{"name": "alice"}, {"name": "alice", "keys": [ONE]}], "names alice twice"),
        ([{"name": "alice", "keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}], "of alice is no public key"),
        ([{"name": "alice", "keys": [""]}], "'' of alice is no public key"),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(wanted: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        acts(wanted, [])
