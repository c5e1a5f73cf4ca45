"""Settings that point a gateway at the tests' engine. What is absent fails the test that needs it."""

import os

SPEAK_DOCKER = {"docker", "docker-rootless", "podman"}
"""The kinds of the tests that are one engine of ours."""


def engine_kind() -> str:
    """Return the engine under test: `docker`, or what DEVGW_TEST_ENGINE says."""
    return os.environ.get("DEVGW_TEST_ENGINE", "docker")


def engine_variables(kind: str = "") -> dict[str, str]:
    """Return DEVGW_* variables for the engine and image that tests/setup/with_engine named, or those of another kind.

    Before a cluster there is Docker too.
    """
    kind = kind or engine_kind()
    if kind == "kubernetes":
        from tests.cluster.environments import cluster_variables

        return cluster_variables()
    kind = "docker" if kind in SPEAK_DOCKER else kind
    place = {
        "docker": ("DEVGW_ENGINE_DOCKER_URL", "DOCKER_HOST"),
        "bubblewrap": ("DEVGW_ENGINE_ROOTS_DIR", "DEVGW_TEST_ROOTS"),
    }
    setting, source = place[kind]
    return {
        "DEVGW_ENGINE_KIND": kind,
        setting: os.environ[source],
        "DEVGW_ENVIRONMENTS_IMAGE": os.environ["DEVGW_TEST_IMAGE"],
        "DEVGW_ENVIRONMENTS_MEMORY": "2GiB",
        "DEVGW_ENVIRONMENTS_CPUS": "2",
        "DEVGW_GPUS_INVENTORY": "cdi",
        "DEVGW_GPUS_CDI_SPEC_DIRS": os.environ.get("DEVGW_TEST_CDI_DIR", "/etc/cdi:/var/run/cdi"),
    }
