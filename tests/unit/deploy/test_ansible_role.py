"""Ansible's role as it is written: what may be set is declared, has a default and stands on the page."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
_ROLE = ROOT / "deploy/ansible/roles/devgw"
_PAGE = (ROOT / "docs/howto/with-ansible.md").read_text()
_OWN = re.compile(r"\bdevgw_\w+")


def read(path: str) -> Any:
    return yaml.safe_load((_ROLE / path).read_text())


def declared() -> dict[str, Any]:
    return dict(read("meta/argument_specs.yml")["argument_specs"]["main"]["options"])


def test_every_variable_is_declared_and_has_its_default() -> None:
    """Ansible checks the declarations at the start of a run, and names what is not of that kind."""
    defaults = read("defaults/main.yml")
    assert declared().keys() == defaults.keys()
    for name, option in declared().items():
        assert option.get("default", defaults[name]) == defaults[name], name


def test_every_variable_stands_on_the_page() -> None:
    rows = "\n".join(line for line in _PAGE.splitlines() if line.startswith("| `devgw_"))
    assert {name for name in _OWN.findall(rows) if not name.startswith("devgw_VERSION")} == declared().keys()


def test_tasks_use_no_variable_that_nobody_sets() -> None:
    """A name with a typing error would be an undefined variable in the one branch that no run reached."""
    text = "\n".join(path.read_text() for path in (_ROLE / "tasks").glob("*.yml"))
    text += (_ROLE / "handlers/main.yml").read_text()
    made = set(re.findall(r"register: (devgw_\w+)", text)) | set(re.findall(r"^\s+(devgw_\w+): ", text, re.MULTILINE))
    filters = {"devgw_settings_as_toml", "devgw_acts_on_users"}
    assert set(_OWN.findall(text)) <= made | filters | declared().keys()


def test_every_task_has_a_name() -> None:
    def tasks(listed: list[dict[str, Any]]) -> Any:
        for task in listed:
            yield task
            for part in ("block", "always", "rescue"):
                yield from tasks(task.get(part, []))

    for path in [*(_ROLE / "tasks").glob("*.yml"), _ROLE / "handlers/main.yml"]:
        for task in tasks(yaml.safe_load(path.read_text())):
            assert task.get("name"), (path.name, task)


def test_the_example_sets_what_is_declared() -> None:
    (play,) = yaml.safe_load((ROOT / "deploy/ansible/site.yml").read_text())
    (role,) = play["roles"]
    assert set(role["vars"]) <= declared().keys()
