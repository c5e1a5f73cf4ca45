"""Names the questions that may be asked, each with the page that it is on and whether it changes anything."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from policies.requests import PageLevel

Give = Callable[..., Any]
_Given = TypeVar("_Given", bound=Give)


@dataclass(frozen=True, slots=True)
class Known:
    """One question: who may ask it, and whether the journal keeps that it was asked."""

    give: Give
    level: PageLevel
    journaled: bool


class Answers:
    """The questions of one file."""

    def __init__(self) -> None:
        self.known: dict[str, Known] = {}

    def to(self, name: str, *, level: PageLevel = "user", journaled: bool = False) -> Callable[[_Given], _Given]:
        """Register what answers: a function of site, asker and the question's values. What writes is journaled."""

        def register(give: _Given) -> _Given:
            self.known[name] = Known(give, level, journaled)
            return give

        return register


def joined(several: Iterable[Answers]) -> dict[str, Known]:
    """Return the questions of several files."""
    known: dict[str, Known] = {}
    for answers in several:
        twice = known.keys() & answers.known.keys()
        if twice:
            raise ValueError(f"answered twice: {', '.join(sorted(twice))}")
        known |= answers.known
    return known
