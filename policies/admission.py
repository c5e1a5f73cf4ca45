"""Whether a person may be here at all: roles in force, their key, certificate, address and hours.

Every request on an SSH connection passes here again, so asking anew about an open channel enforces a changed policy.
"""

from datetime import timedelta

from policies.addresses import holds, parse_network
from policies.effective_roles import EffectiveRoles
from policies.keys import HARDWARE_KEY_TYPES, CertificateAuthority, key_type_of
from policies.model import Policy
from policies.requests import (
    Certificate,
    CreateRequest,
    Decision,
    EgressHostRequest,
    LoginRequest,
    Request,
    SharedRequest,
    Subject,
)
from policies.wording import quote

WITHOUT_HOURS = (CreateRequest, EgressHostRequest, SharedRequest)
"""What an administrator or an environment asks for: it has neither hours nor a key nor an address."""
DEFAULT_DENY = "default deny"
_CLOCK_SKEW = timedelta(seconds=60)


def refuse(rule: str, reason: str) -> Decision:
    """Build a refusal."""
    return Decision(allowed=False, rule=rule, reason=reason)


def admission_refusal(policy: Policy, effective: EffectiveRoles, request: Request) -> Decision | None:
    """Return why this person may not act at all, or None.

    What an administrator creates for them has no hours, nor has what runs in it.
    """
    subject = request.subject
    if not effective.held:
        return _nothing_held(policy, subject.user)
    if (denying := effective.login_denial) is not None:
        return refuse(denying.rule("deny.login"), f"the role {denying.name!r} denies access")
    if subject.key_fingerprint and subject.key_fingerprint in policy.revoked_keys:
        return refuse(policy.rule("revoked_keys"), "this key is revoked")
    if not effective.in_force and not isinstance(request, WITHOUT_HOURS):
        spans = ", ".join(f"{held.name}: {'; '.join(map(str, held.role.hours))}" for held in effective.held)
        return refuse(effective.held[0].rule("hours"), f"outside the hours of access ({spans})")
    is_login = isinstance(request, LoginRequest)
    return _key_refusal(effective, subject, is_login=is_login) or (
        _address_refusal(effective, subject, is_login=is_login) or _certificate_refusal(policy, effective, request)
    )


def _nothing_held(policy: Policy, user: str) -> Decision:
    holdings = policy.holders.holdings(user)
    if holdings:
        return refuse(holdings[0].rule, "no grant is valid at this time")
    return refuse(DEFAULT_DENY, "no role was granted")


def _key_refusal(  # noqa: PLR0911  # one return per restriction reads as the list it is
    effective: EffectiveRoles, subject: Subject, *, is_login: bool
) -> Decision | None:
    if not subject.key_algorithm:
        return refuse(DEFAULT_DENY, "a login needs a key") if is_login else None
    key_type = key_type_of(subject.key_algorithm)
    if key_type is None:
        return refuse(DEFAULT_DENY, f"keys of type {quote(subject.key_algorithm)} are never accepted")
    if (denying := effective.denied_key_types.get(key_type)) is not None:
        return refuse(denying.rule("deny.key_types"), f"{key_type} keys are denied")
    for held in effective.key_rules:
        role = held.role
        if key_type not in role.key_types:
            return refuse(held.rule("key_types"), f"{key_type} keys are not accepted, only {', '.join(role.key_types)}")
        if key_type == "rsa" and subject.key_bits < role.required_rsa_size:
            shortage = f"an RSA key of {subject.key_bits} bits is too short, {role.required_rsa_size} are asked for"
            return refuse(held.rule("required_rsa_size"), shortage)
        if role.require_hardware_key and key_type not in HARDWARE_KEY_TYPES:
            return refuse(held.rule("require_hardware_key"), "only keys in a security key (sk-) are accepted")
        if role.require_certificate and subject.certificate is None:
            return refuse(held.rule("require_certificate"), "only certificates are accepted")
    return None


def _address_refusal(effective: EffectiveRoles, subject: Subject, *, is_login: bool) -> Decision | None:
    if not subject.address and not is_login:
        return None
    for networks, rule in effective.denied_networks:
        if holds(networks, subject.address):
            return refuse(rule, f"logins from {quote(subject.address)} are denied")
    for networks, rule in effective.networks:
        if not holds(networks, subject.address):
            return refuse(rule, f"logins from {quote(subject.address)} are not permitted")
    return None


def _certificate_refusal(policy: Policy, effective: EffectiveRoles, request: Request) -> Decision | None:
    certificate = request.subject.certificate
    if certificate is None:
        return None
    name = policy.authority_name(certificate.ca_fingerprint)
    if name is None:
        return refuse(DEFAULT_DENY, "the certificate's CA is not listed")
    rule = policy.rule(f"certificate_authorities.{name}")
    if certificate.ca_fingerprint in policy.revoked_keys:
        return refuse(policy.rule("revoked_keys"), "the certificate's CA is revoked")
    roles = effective.held if isinstance(request, CreateRequest) else effective.in_force
    if not any(name in held.role.certificate_authorities for held in roles):
        return refuse(DEFAULT_DENY, f"no role accepts certificates of {name!r}")
    fault = _revocation(policy.certificate_authorities[name], certificate) or _misuse(certificate, request)
    if fault is None and certificate.valid_before - certificate.valid_after > timedelta(
        seconds=policy.certificate_authorities[name].max_validity
    ):
        fault = "the certificate is valid for longer than its CA may grant"
    return refuse(rule, fault) if fault else None


def _revocation(authority: CertificateAuthority, certificate: Certificate) -> str | None:
    if certificate.serial in authority.revoked_serials:
        return f"the certificate with serial {certificate.serial} is revoked"
    if certificate.key_id in authority.revoked_key_ids:
        return f"the certificate {quote(certificate.key_id)} is revoked"
    return None


def _misuse(certificate: Certificate, request: Request) -> str | None:  # noqa: PLR0911  # one return per fault
    """Judge what the certificate says of itself. One without principals is for nobody (sshd's AuthorizedPrincipals)."""
    if request.subject.user not in certificate.principals:
        return "the certificate does not name this user as a principal"
    if request.at < certificate.valid_after - _CLOCK_SKEW:
        return "the certificate is not valid yet"
    if request.at >= certificate.valid_before:
        return "the certificate has expired"
    if certificate.critical_options:
        return f"the certificate has a critical option that is not understood: {quote(certificate.critical_options[0])}"
    if certificate.source_addresses and request.subject.address:
        try:
            networks = tuple(parse_network(text) for text in certificate.source_addresses)
        except ValueError:
            return "the certificate's source-address cannot be read"
        if not holds(networks, request.subject.address):
            return "the certificate is not valid from this address"
    return None
