"""What a cluster's API answers, in our words: the one door. The original is kept as the cause."""

import re
from collections.abc import Mapping
from typing import Any

from gateway.errors import ConflictError, DevgwError, EngineError, NotFoundError

_LINE_LENGTH = 300
_RIGHTS = "give the gateway's account the Role in docs/reference/kubernetes-engine.md"
_PREAMBLE = re.compile(r"^(pods|secrets|persistentvolumeclaims) \"[^\"]*\" is forbidden: ")


class ApiRefusalError(Exception):
    """An answer of the API that is no success: its `Status` object (HTTP status, reason, message, details)."""

    def __init__(self, status: int, reason: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}


class ApiSilenceError(Exception):
    """Nothing that can be understood came from the API."""


def refusal_of(status: int, body: object, text: str = "") -> ApiRefusalError:
    """Read a `Status` object; whatever else came, its text is the message."""
    if isinstance(body, Mapping) and body.get("kind") == "Status":
        return ApiRefusalError(
            int(body.get("code") or status),
            str(body.get("reason") or ""),
            str(body.get("message") or ""),
            body.get("details") or {},
        )
    return ApiRefusalError(status, "", text or f"HTTP {status}")


def translate(exc: Exception, address: str, doing: str) -> DevgwError:
    """Say in one line what went wrong while the cluster was asked to do something, such as `start alice`."""
    if not isinstance(exc, ApiRefusalError):
        return unreachable(address, one_line(str(exc)))
    reason = one_line(exc.message)
    if exc.status == 401:
        return EngineError(
            "engine.unauthorized",
            f"the cluster at {address} does not accept the gateway's credentials",
            "renew the kubeconfig or the service account's token",
        )
    if exc.status == 403:
        return _forbidden(reason, doing)
    if exc.status == 404:
        return _absent(exc, doing)
    return _failed(exc.status, reason, doing)


def _absent(exc: ApiRefusalError, doing: str) -> EngineError:
    """Tell a namespace that is not there from a kind of object that the cluster does not know."""
    if exc.details.get("kind") == "namespaces":
        return EngineError(
            "engine.no-namespace",
            f"the cluster has no namespace {exc.details.get('name', '')}",
            "make it with 'kubectl create namespace', or set kubernetes.namespace",
        )
    why = one_line(exc.message)
    return EngineError("engine.failed", f"the cluster could not {doing}: {why}", "it may be too old for devgw")


def _failed(status: int, reason: str, doing: str) -> EngineError:
    if status in {400, 422}:
        return EngineError("engine.refused", f"the cluster did not accept to {doing}: {reason}")
    if status in {429, 500, 502, 503, 504}:
        return EngineError(
            "engine.unreachable", f"the cluster could not {doing} now: {reason}", "try again in a moment"
        )
    return EngineError("engine.failed", f"the cluster could not {doing}: {reason}", "'kubectl get events' says more")


def unreachable(address: str, why: str) -> EngineError:
    """Say that the API does not answer."""
    return EngineError(
        "engine.unreachable",
        f"the cluster at {address} does not answer: {why}",
        "'kubectl cluster-info' with the same kubeconfig shows whether it does",
    )


def environment_not_found(ref: object) -> NotFoundError:
    """Say that the engine has no such environment."""
    return NotFoundError("environment.not-found", f"the engine has no environment {ref}", "'devgw list' shows all")


def environment_exists(ref: object) -> ConflictError:
    """Say that the name is taken."""
    return ConflictError(
        "environment.exists", f"the engine already has an environment {ref}", f"'devgw delete {ref}' removes it"
    )


def foreign_pod(name: str, namespace: str) -> ConflictError:
    """Say that somebody else's pod stands where an environment's would."""
    return ConflictError(
        "engine.foreign",
        f"pod {name} carries devgw's labels and was not made by this gateway",
        f"look at it, then 'kubectl -n {namespace} delete pod {name}'",
    )


def image_not_found(reference: str, reason: str) -> NotFoundError:
    """Say that the nodes cannot get an image."""
    return NotFoundError(
        "image.not-found",
        f"the nodes cannot get the image {one_line(reference)}: {one_line(reason)}",
        "'devgw image build' makes one; push it to a registry that the nodes can read, or import it on each",
    )


def one_line(text: str) -> str:
    """Make text from the cluster fit for one line of output: no control characters, at most 300 characters."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(printable.split())[:_LINE_LENGTH]


def _forbidden(reason: str, doing: str) -> DevgwError:
    """Tell a missing right from an admission that refused: both are 403."""
    if "exceeded quota" in reason:
        return EngineError(
            "engine.refused",
            f"the namespace's quota does not let devgw {doing}: {_PREAMBLE.sub('', reason)}",
            "'kubectl describe resourcequota' shows it; ask for less, or have it raised",
        )
    if "PodSecurity" in reason or "unable to validate against any pod security policy" in reason:
        return EngineError(
            "engine.refused",
            f"the namespace's pod security does not let devgw {doing}: {_PREAMBLE.sub('', reason)}",
            "devgw's pods keep to the level 'restricted'; shared_dirs and datasets by path need hostPath",
        )
    if "cannot" in reason:
        return EngineError("engine.forbidden", f"devgw may not {doing}: {reason}", _RIGHTS)
    return EngineError("engine.refused", f"the cluster did not let devgw {doing}: {reason}", _RIGHTS)
