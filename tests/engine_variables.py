"""Settings that point a gateway at the tests' engine. What is absent fails the test that needs it."""

import os


def engine_variables() -> dict[str, str]:
    """Return DEVGW_* variables for the engine and image that tests/setup/with_engine named."""
    return {
        "DEVGW_ENGINE_KIND": "docker",
        "DEVGW_ENGINE_DOCKER_URL": os.environ["DOCKER_HOST"],
        "DEVGW_ENVIRONMENTS_IMAGE": os.environ["DEVGW_TEST_IMAGE"],
        "DEVGW_ENVIRONMENTS_MEMORY": "2GiB",
        "DEVGW_ENVIRONMENTS_CPUS": "2",
        "DEVGW_GPUS_INVENTORY": "cdi",
        "DEVGW_GPUS_CDI_SPEC_DIRS": os.environ.get("DEVGW_TEST_CDI_DIR", "/etc/cdi:/var/run/cdi"),
    }
