"""The list of planted bugs: none has rotted, and two of those that the page calls seen, others in each run, are seen.

`make mutants-runner` tries all.
"""

import random

import pytest
from mutation import TESTS, copy_source, plant, try_mutant
from planted import ALL

from exact_seed import SEED

SAMPLE = 2
PAGE = (TESTS.parents[2] / "docs" / "reference" / "runner-mutants.md").read_text(encoding="utf-8")
SEEN = [mutant for mutant in ALL if f"| {mutant.name} | `{mutant.test}` | yes |" in PAGE]


def test_each_bug_can_be_planted_and_names_a_test_that_is_there(tmp_path):
    """Who changes the source changes the bug with it."""
    for index, mutant in enumerate(ALL):
        plant(mutant, copy_source(tmp_path / str(index)))
        file, _, name = mutant.test.partition("::")
        assert f"def {name.partition('[')[0]}(" in (TESTS / file).read_text(), mutant.name
        assert f"| {mutant.name} | `{mutant.test}` | " in PAGE
    assert "| NO |" not in PAGE
    assert len({mutant.name for mutant in ALL}) == len(ALL)


def test_a_bug_whose_place_is_gone_is_told(tmp_path):
    source = copy_source(tmp_path)
    plant(ALL[0], source)
    with pytest.raises(LookupError, match="has 0 times"):
        plant(ALL[0], source)


@pytest.mark.slow
@pytest.mark.parametrize("bug", random.Random(SEED).sample(SEEN, SAMPLE), ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_is_seen_by_the_test_it_names(bug):
    verdict = try_mutant(bug)
    assert verdict.died, verdict.output
