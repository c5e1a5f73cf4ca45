"""A user's own environments: what they are, and what their user may do to them."""

from typing import Any

from gateway.auth.passwords import make_password
from gateway.errors import UsageError
from gateway.model import Environment, EnvironmentRef, EnvironmentState, UserName, parse_environment_name
from gateway.page.desk.answers_register import Answers
from gateway.page.desk.site import Asker, Site, acts_of

answers = Answers()
_LONGEST_EXTENSION = 400 * 86400


@answers.to("environments.mine")
def mine(site: Site, asker: Asker) -> list[dict[str, Any]]:
    """Return the asker's environments."""
    return [_described(site, one) for one in site.table.all(asker.user)]


@answers.to("environments.start", journaled=True)
def start(site: Site, asker: Asker, name: str) -> None:
    """Start one that is stopped."""
    acts_of(site, asker).environments.start(_own(asker, name))


@answers.to("environments.stop", journaled=True)
def stop(site: Site, asker: Asker, name: str) -> None:
    """Stop one; its files stay."""
    acts_of(site, asker).environments.stop(_own(asker, name))


@answers.to("environments.restart", journaled=True)
def restart(site: Site, asker: Asker, name: str) -> None:
    """Stop one and start it, unless its node would not have it again."""
    ref = _own(asker, name)
    site.environments.require_open_node(site.table.require(ref))
    acts_of(site, asker).environments.stop(ref)
    acts_of(site, asker).environments.start(ref)


@answers.to("environments.extend", journaled=True)
def extend(site: Site, asker: Asker, name: str, seconds: int) -> str:
    """Keep its GPUs for longer, within what the policy allows; return the new end."""
    if not 0 < seconds <= _LONGEST_EXTENSION:
        raise UsageError("duration.bad", f"{seconds} s is no time to extend by", "for example 4h")
    return acts_of(site, asker).gpus.extend(_own(asker, name), seconds).isoformat()


@answers.to("environments.password", journaled=True)
def password(site: Site, asker: Asker, name: str) -> str:
    """Give its notebook another password and return it; it is kept nowhere."""
    made = make_password()
    acts_of(site, asker).environments.set_password(_own(asker, name), made)
    return made


def _own(asker: Asker, name: str) -> EnvironmentRef:
    return EnvironmentRef(UserName(asker.user), parse_environment_name(name))


def _described(site: Site, environment: Environment) -> dict[str, Any]:
    outlook = site.rounds.outlook(environment) if environment.state is EnvironmentState.RUNNING else None
    last = outlook.active_at if outlook else environment.last_active_at
    return {
        "handle": str(environment.ref),
        "name": environment.ref.name,
        "state": environment.state.value,
        "detail": environment.trouble or environment.detail,
        "image": environment.image,
        "gpus": list(environment.gpus),
        "gpu_request": environment.gpu_request,
        "memory_bytes": environment.limits.memory_bytes,
        "cpus": environment.limits.cpus,
        "datasets": list(environment.datasets),
        "egress": environment.egress,
        "created_at": environment.created_at.isoformat(),
        "last_use": last.isoformat() if last else None,
        "activity": outlook.activity if outlook else "",
        "stops_at": outlook.stop_at.isoformat() if outlook and outlook.stop_at else None,
        "stops_because": outlook.ending.cause if outlook and outlook.ending else "",
    }
