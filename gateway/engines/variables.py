"""Environment variables that no spec may set: those by which NVIDIA's runtime and the loader choose devices or code."""

from collections.abc import Mapping

from gateway.errors import EngineError

_RESERVED_PREFIXES = (
    "NVIDIA_",  # NVIDIA_VISIBLE_DEVICES=all would show every GPU; NVIDIA_DISABLE_REQUIRE hides a driver too old
    "DOCKER_RESOURCE_",  # the same by the toolkit's swarm-resource option
    "LD_",  # a hook of the container toolkit once loaded LD_PRELOAD from the container (CVE-2025-23266)
)


def refuse_reserved(variables: Mapping[str, str]) -> None:
    """Refuse reserved names and anything that is not one variable. Raises: EngineError `variable.reserved`."""
    for name in variables:
        if not name or "=" in name or "\0" in name + variables[name] or name.upper().startswith(_RESERVED_PREFIXES):
            raise EngineError(
                "variable.reserved",
                f"the variable {name[:40]!r} cannot be set on an environment",
                "GPUs are chosen with 'devgw create --gpu'",
            )
