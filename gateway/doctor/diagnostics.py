"""Runs every check over the facts, in the order in which a person would mend things."""

from collections.abc import Iterator

from gateway.doctor.driver import judge_driver, judge_image
from gateway.doctor.engine import judge_engine, judge_image_contract
from gateway.doctor.facts import Facts
from gateway.doctor.finding import Finding, ok
from gateway.doctor.gpus import judge_gpus
from gateway.doctor.host import judge_host
from gateway.doctor.injection import judge_injection
from gateway.doctor.nodes import judge_nodes
from gateway.doctor.site import judge_site
from gateway.engines.diagnostics import EngineFacts


def diagnose(facts: Facts) -> Iterator[Finding]:
    """Judge site, host, engine, image and GPUs. A host without a GPU is told so once, and is not ill for it."""
    yield from judge_site(facts.site)
    is_cluster = isinstance(facts.engine, EngineFacts) and facts.engine.cluster is not None
    yield from judge_host(facts.host, None if is_cluster else facts.wish)
    yield from judge_engine(facts.engine, facts.wish)
    yield from judge_nodes(facts.nodes)
    yield judge_image_contract(facts.image, facts.wish)
    if is_cluster:
        yield ok("driver.answers", "drivers and GPUs are the nodes': 'devgw doctor HANDLE' looks from inside")
    elif not facts.gpus_are_wanted:
        yield ok("driver.answers", "the setting gpus.inventory is 'none': checks of GPUs do not apply")
    elif not (facts.driver.pci_gpus or facts.driver.module or facts.driver.sensors.devices):
        yield ok("driver.answers", "this host has no NVIDIA GPU: checks of GPUs do not apply")
    else:
        yield from _check_gpus(facts)


def _check_gpus(facts: Facts) -> Iterator[Finding]:
    yield from judge_driver(facts.driver)
    yield from judge_injection(facts.toolkit, facts.cdi, facts.engine, facts.driver.sensors)
    yield from judge_image(facts.driver, facts.image, facts.wish)
    if not facts.driver.sensors.error:
        yield from judge_gpus(facts.driver.sensors, facts.processes, facts.leases)
