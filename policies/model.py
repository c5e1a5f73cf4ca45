"""A policy: certificate authorities, roles, who holds them, and assertions about the whole. `load` reads it."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, ValidationInfo, model_validator

from policies.document import KeyedError, Table
from policies.effective_roles import Register, register
from policies.hours import TimeZone
from policies.keys import CertificateAuthority, Fingerprint
from policies.policy_tests.assertions import Assertion
from policies.role import Grant, Role
from policies.source import Source

Name = Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,62}$")]


class Policy(Table):
    """Everything that is allowed. What it does not say is denied."""

    version: Literal[1]
    """The version of this format."""
    time_zone: TimeZone = "UTC"
    """Where dates, times and weekly hours are read."""
    notebook_port: Annotated[int, Field(ge=1, le=65_535)] = 8888
    """The loopback port that means the environment's notebook."""
    default_roles: tuple[Name, ...] = ()
    """Roles of every known user whom no grant names. A user whose grants have ended does not fall back to them."""
    revoked_keys: tuple[Fingerprint, ...] = ()
    """Fingerprints of keys and CAs that are refused from now on, whoever offers them (RevokedKeys)."""
    certificate_authorities: dict[Name, CertificateAuthority] = Field(default_factory=dict)
    """CAs whose certificates a role may accept, by name."""
    roles: dict[Name, Role] = Field(default_factory=dict)
    """Roles by name."""
    grants: tuple[Grant, ...] = ()
    """Who holds which roles."""
    tests: tuple[Assertion, ...] = ()
    """What must and must not be allowed; a policy that fails one is not loaded."""

    _register: Register = PrivateAttr()
    _source: Source = PrivateAttr()
    _authority_names: dict[str, str] = PrivateAttr()

    @model_validator(mode="after")
    def _work_out(self, info: ValidationInfo) -> Self:
        self._source = info.context if isinstance(info.context, Source) else Source()
        self._check_names()
        self._authority_names = {ca.fingerprint: name for name, ca in self.certificate_authorities.items()}
        self._register = register(self.roles, self.grants, self.default_roles, self.time_zone, self._source)
        return self

    def _check_names(self) -> None:
        """Refuse a role or CA that is named but not described. Raises: KeyedError."""
        for name in self.default_roles:
            _check_known(name, self.roles, "default_roles", "role")
        for index, grant in enumerate(self.grants):
            for name in grant.roles:
                _check_known(name, self.roles, f"grants.{index}.roles", "role")
        for role_name, role in self.roles.items():
            for name in role.certificate_authorities:
                key = f"roles.{role_name}.certificate_authorities"
                _check_known(name, self.certificate_authorities, key, "certificate authority")

    @property
    def holders(self) -> Register:
        """Who holds what, worked out when the policy was read."""
        return self._register

    def authority_name(self, fingerprint: str) -> str | None:
        """Return the name of the CA with that key."""
        return self._authority_names.get(fingerprint)

    def rule(self, key: str) -> str:
        """Name a key and where it stands: `revoked_keys (policy.toml:7)`."""
        return f"{key} ({self._source.place(key)})"

    def line(self, key: str) -> int:
        """Return the line of a key, 0 where unknown."""
        return self._source.line(key)

    def place(self, key: str) -> str:
        """Return `file:line` of a key."""
        return self._source.place(key)


def _check_known(name: str, known: Mapping[str, object], key: str, noun: str) -> None:
    if name not in known:
        near = get_close_matches(name, known, n=1)
        raise KeyedError(key, f"no {noun} {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
