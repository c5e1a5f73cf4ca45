"""May this user have such an environment: number, image, size, GPUs, datasets, egress, lifetime."""

from collections.abc import Callable, Iterator

from policies.admission import DEFAULT_DENY, refuse
from policies.effective_roles import EffectiveRoles, HeldRole
from policies.egress import EgressRule, parse_target
from policies.limits import egress_of, limits_held
from policies.matching import first_match
from policies.model import Policy
from policies.quantities import show_duration, show_size
from policies.requests import CreateRequest, Decision
from policies.role import Role
from policies.wording import quote


def decide_create(_policy: Policy, effective: EffectiveRoles, request: CreateRequest) -> Decision:
    """Judge what is asked for, part by part; the first that is too much or unknown names its rule."""
    for refusal in _refusals(effective, request):
        return refusal
    largest = max(effective.held, key=lambda held: held.role.max_environments)
    return Decision(allowed=True, rule=largest.rule("max_environments"), reason="within what the roles permit")


def _refusals(effective: EffectiveRoles, request: CreateRequest) -> Iterator[Decision]:
    yield from _number_refusals(effective, request)
    yield from _disk_refusals(effective, request.disk_bytes)
    yield from _image_refusals(effective, request.image, request.image_digest)
    for dataset in request.datasets:
        yield from _name_refusals(
            effective, "datasets", lambda role: role.datasets, lambda role: role.deny.datasets, dataset
        )
    profiles = request.gpu_profiles or (("full",) if request.gpus else ())
    for profile in profiles:
        yield from _name_refusals(
            effective,
            "gpu_profiles",
            lambda role: role.gpu_profiles or (("full",) if role.max_gpus else ()),
            lambda role: role.deny.gpu_profiles,
            profile or "full",
        )
    yield from _egress_refusals(effective, request.egress)
    yield from _lifetime_refusals(effective, request.lifetime_seconds)


def _number_refusals(effective: EffectiveRoles, request: CreateRequest) -> Iterator[Decision]:
    limits = limits_held(effective)
    gpus = request.gpus_held + max(request.gpus, len(request.gpu_profiles))
    wanted: tuple[tuple[str, float, float, Callable[[float], str]], ...] = (
        ("max_environments", request.environments + 1, limits.environments, lambda count: f"{count:g} environments"),
        ("max_memory", request.memory_bytes, limits.memory_bytes, lambda size: f"{show_size(int(size))} of memory"),
        ("max_cpus", request.cpus, limits.cpus, lambda count: f"{count:g} processors"),
        ("max_gpus", gpus, limits.gpus, lambda count: f"{count:g} GPUs"),
    )
    for option, amount, limit, show in wanted:
        if amount > limit:
            largest = max(effective.held, key=lambda held: getattr(held.role, option))
            yield refuse(largest.rule(option), f"{show(amount)} are more than the {show(limit)} permitted")
        if amount < 0:
            yield refuse(DEFAULT_DENY, f"{option.removeprefix('max_')} cannot be negative")


def _disk_refusals(effective: EffectiveRoles, disk_bytes: int | None) -> Iterator[Decision]:
    limit = limits_held(effective).disk_bytes
    if limit is None or disk_bytes is None or 0 < disk_bytes <= limit:
        return
    largest = max(effective.held, key=lambda held: held.role.max_disk or 0)
    asked = f"{show_size(disk_bytes)} of disk are" if disk_bytes else "a disk without a size is"
    yield refuse(largest.rule("max_disk"), f"{asked} more than the {show_size(limit)} permitted")


def _name_refusals(
    effective: EffectiveRoles,
    option: str,
    permitted: Callable[[Role], tuple[str, ...]],
    denied: Callable[[Role], tuple[str, ...]],
    name: str,
) -> Iterator[Decision]:
    noun = option.replace("gpu_profiles", "GPU profile").removesuffix("s")
    denying = first_match(effective.denying, denied, name)
    if denying is not None:
        yield refuse(denying.rule(f"deny.{option}"), f"the {noun} {quote(name)} is denied")
    elif first_match(effective.held, permitted, name) is None:
        yield refuse(DEFAULT_DENY, f"no role permits the {noun} {quote(name)}")


def image_denial(effective: EffectiveRoles, image: str, digest: str) -> Decision | None:
    """Return the refusal of an image that is denied by its name, by the name without a pin, or by its digest."""
    for name in dict.fromkeys((image, image.partition("@")[0], *([digest] if digest else []))):
        denying = first_match(effective.denying, lambda role: role.deny.images, name)
        if denying is not None:
            return refuse(denying.rule("deny.images"), f"the image {quote(name)} is denied")
    return None


def _image_refusals(effective: EffectiveRoles, image: str, digest: str) -> Iterator[Decision]:
    """A role permits an image by its whole name or by its digest."""
    denial = image_denial(effective, image, digest)
    if denial is not None:
        yield denial
    elif not any(first_match(effective.held, lambda role: role.images, name) for name in {image, digest or image}):
        yield refuse(DEFAULT_DENY, f"no role permits the image {quote(image)}")


def _egress_refusals(effective: EffectiveRoles, wanted: str) -> Iterator[Decision]:
    if wanted == "none":
        return
    denying: HeldRole | None = next((held for held in effective.denying if held.role.deny.egress), None)
    if denying is not None:
        yield refuse(denying.rule("deny.egress"), "connections to the outside are denied")
        return
    rule = egress_of(effective)
    if rule.mode == "none" or not _is_egress_within(wanted, rule):
        yield refuse(DEFAULT_DENY, f"no role permits egress {quote(wanted)}; permitted: {rule}")


def _is_egress_within(wanted: str, rule: EgressRule) -> bool:
    """`list` takes whatever list the roles give; else targets separated by commas, each inside one of the list."""
    if wanted in {"internet", "list"}:
        return wanted == rule.mode or (wanted == "list" and bool(rule.targets))
    try:
        targets = [parse_target(text.strip()) for text in wanted.split(",")]
    except ValueError:
        return False
    return all(any(own.covers(target) for own in rule.targets) for target in targets)


def _lifetime_refusals(effective: EffectiveRoles, seconds: int | None) -> Iterator[Decision]:
    limits = limits_held(effective)
    if limits.lifetime_seconds is not None and (seconds is None or seconds > limits.lifetime_seconds):
        asked = "no end" if seconds is None else show_duration(seconds)
        longest = show_duration(limits.lifetime_seconds)
        rule = next(held for held in effective.held if held.role.max_lifetime == limits.lifetime_seconds)
        yield refuse(rule.rule("max_lifetime"), f"a lifetime of {asked} is longer than {longest}; ask for one")
