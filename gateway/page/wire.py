"""What the page's two processes say to each other: questions and answers, a line of JSON each, over a socket pair."""

from typing import Any, Final, TypedDict

LINE_MAX: Final = 4 << 20
"""Of one answer; what is larger is asked for in pieces."""


class Question(TypedDict):
    """`claim` is the sealed line of the connection on whose behalf it is asked; `live` says that a live part asks."""

    number: int
    claim: str
    ask: str
    values: dict[str, Any]
    live: bool


class Fault(TypedDict):
    """Why there is no answer: the words of a DevgwError, and HTTP's status for it."""

    code: str
    message: str
    hint: str
    status: int


class Answer(TypedDict, total=False):
    """`answer` or `fault`."""

    number: int
    answer: Any
    fault: Fault
