"""What a Docker build's stream of messages is taken to mean."""

import pytest

from gateway.engines.docker.image_build import LAST_LINES, BuildOutput
from gateway.errors import EngineError


def follow(*messages: dict[str, object]) -> tuple[BuildOutput, list[tuple[int, int, str]]]:
    """Feed the messages and return what came of them."""
    seen: list[tuple[int, int, str]] = []
    output = BuildOutput(lambda *line: seen.append(line))
    for message in messages:
        output.take(message)
    return output, seen


def test_steps_and_lines_are_reported_in_order() -> None:
    """Each line is told with the step it belongs to."""
    output, seen = follow(
        {"stream": "Step 1/2 : FROM base"},
        {"stream": "\n"},
        {"stream": "Step 2/2 : RUN make"},
        {"stream": "hello\nworld\n"},
        {"aux": {"ID": "sha256:abc"}},
    )
    assert seen == [(1, 2, "Step 1/2 : FROM base"), (2, 2, "Step 2/2 : RUN make"), (2, 2, "hello"), (2, 2, "world")]
    output.raise_failure()
    assert output.image == "sha256:abc"


def test_failure_carries_the_last_lines_of_its_step_only() -> None:
    """Earlier steps' output and all but the last lines are left out."""
    lines = "".join(f"line {number}\n" for number in range(50))
    output, _ = follow(
        {"stream": "Step 1/2 : RUN true"},
        {"stream": "from before\n"},
        {"stream": "Step 2/2 : RUN make"},
        {"stream": lines},
        {"error": "returned a non-zero code: 2", "errorDetail": {}},
    )
    with pytest.raises(EngineError) as caught:
        output.raise_failure()
    assert "step 2 of 2 (RUN make) failed: returned a non-zero code: 2" in caught.value.message
    assert "from before" not in caught.value.message
    assert caught.value.message.count("\n") == LAST_LINES


def test_stream_that_ends_without_an_image_is_a_failure() -> None:
    """A connection that breaks off is not taken for success."""
    with pytest.raises(EngineError, match="no image was made"):
        follow({"stream": "Step 1/2 : FROM base"})[0].raise_failure()
