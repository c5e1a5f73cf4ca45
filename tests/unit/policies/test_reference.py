"""docs/reference/policy.md and the models name the same fields."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from policies.keys import CertificateAuthority
from policies.model import Policy
from policies.policy_tests.assertions import Assertion
from policies.role import Denials, Grant, Role

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "policy.md").read_text()
SECTIONS: list[tuple[str, type[BaseModel]]] = [
    ("## Top level", Policy),
    ("## `[certificate_authorities.NAME]`", CertificateAuthority),
    ("## `[roles.NAME]`:", Role),
    ("## `[[grants]]`", Grant),
    ("## `[[tests]]`", Assertion),
]


def fields_of(model: type[BaseModel]) -> list[str]:
    return sorted(field.alias or name for name, field in model.model_fields.items())


@pytest.mark.parametrize(("heading", "model"), SECTIONS)
def test_a_table_of_the_reference_lists_every_field(heading: str, model: type[BaseModel]) -> None:
    sections = [section for section in re.split(r"(?m)^(?=## )", PAGE) if section.startswith(heading)]
    rows = [name for section in sections for name in re.findall(r"(?m)^\| `([a-z_]+)` \|", section)]
    assert sorted(rows) == fields_of(model)


def test_the_reference_lists_every_denial() -> None:
    section = PAGE.partition("## `[roles.NAME.deny]`")[2].partition("\n## ")[0]
    listed = section.partition("names of what they deny:")[2].partition(".")[0]
    assert sorted(re.findall(r"`([a-z_]+)`", listed)) == fields_of(Denials)


def test_role_tables_state_a_merge_rule_for_every_option() -> None:
    section = PAGE.partition("## `[roles.NAME]`: who and when")[2].partition("## `[roles.NAME.deny]`")[0]
    for row in re.findall(r"(?m)^\| `.*$", section):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 5
        assert cells[3], row
