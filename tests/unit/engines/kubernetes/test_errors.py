"""The API's answers in our words."""

import pytest

from gateway.engines.kubernetes.errors import ApiSilenceError, refusal_of, translate


def status(code: int, reason: str, message: str, **details: str) -> dict[str, object]:
    return {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}


MAY_NOT = 'pods is forbidden: User "devgw" cannot create resource "pods" in API group "" in the namespace "devgw"'
QUOTA = 'pods "devgw-alice" is forbidden: exceeded quota: small, requested: limits.memory=8Gi, used: 0, limited: 4Gi'
SECURITY = 'pods "devgw-alice" is forbidden: violates PodSecurity "restricted:latest": restricted volume types'


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (status(401, "Unauthorized", "Unauthorized"), "engine.unauthorized", "credentials"),
        (status(403, "Forbidden", MAY_NOT), "engine.forbidden", "cannot create resource"),
        (status(403, "Forbidden", QUOTA), "engine.refused", "exceeded quota"),
        (status(403, "Forbidden", SECURITY), "engine.refused", "PodSecurity"),
        (status(404, "NotFound", 'namespaces "x" not found', kind="namespaces", name="x"), "engine.no-namespace", "x"),
        (status(404, "NotFound", "the server could not find the requested resource"), "engine.failed", "find"),
        (status(422, "Invalid", "spec.containers[0].image: Required value"), "engine.refused", "Required value"),
        (status(503, "ServiceUnavailable", "the server is starting"), "engine.unreachable", "now"),
    ],
)
def test_each_refusal_has_a_code_and_the_clusters_reason(answer: dict[str, object], code: str, words: str) -> None:
    error = translate(refusal_of(0, answer), "https://api:6443", "create alice")
    assert error.code == code
    assert words in error.message
    assert "\n" not in error.message


def test_an_answer_that_is_no_status_is_quoted() -> None:
    """A proxy in between wrote it."""
    error = translate(refusal_of(502, None, "<html>\nbad gateway"), "https://api", "list environments")
    assert (error.code, "bad gateway" in error.message, "\n" in error.message) == ("engine.unreachable", True, False)


def test_silence_names_the_address() -> None:
    error = translate(ApiSilenceError("connection refused"), "https://api:6443", "create alice")
    assert (error.code, "https://api:6443" in error.message) == ("engine.unreachable", True)
