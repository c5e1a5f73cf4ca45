"""Judges the gateway's own state: directories, keys, policy, database, journal, port."""

from collections.abc import Iterator

from gateway.doctor.facts import DiskFacts, FileFacts, ServiceFacts, SiteFacts
from gateway.doctor.finding import Finding, failure, judged, ok, warning

_OTHERS = 0o077


def judge_site(site: SiteFacts) -> Iterator[Finding]:
    """Judge the site; before `devgw init` that is the one thing to say, beside policy and port."""
    if site.is_initialised:
        yield ok("site.state", f"initialised, settings in {site.config_file}")
        yield judge_private(site.private, site.uid)
        yield judge_keys(site.keys, site.uid, site.host_key_fingerprint)
        yield judged("site.database", site.database, judge_database, "run 'devgw doctor' as the gateway's account")
        yield judged("site.journal", site.journal, judge_journal, "run 'devgw doctor' as the gateway's account")
        yield judged("site.environments", site.troubles, judge_troubles, "run 'devgw doctor' as the gateway's account")
        yield judged("site.disks", site.disks, judge_disks, "run 'devgw doctor' as the gateway's account")
        yield judge_duties(site.duties)
    else:
        yield warning("site.state", "devgw is not initialised on this host", "'devgw init'")
    if site.service is not None:
        yield judged("site.service", site.service, judge_service, "run 'devgw doctor' as root")
    yield judge_policy(site)
    yield judge_macs(site.opened_macs)
    yield judge_port(site)


def judge_private(places: tuple[FileFacts, ...], uid: int) -> Finding:
    """State, journal and sockets belong to the gateway alone."""
    check = "site.permissions"
    for place in places:
        if place.mode & _OTHERS:
            return failure(
                check, f"others may enter {place.path} (mode {place.mode & 0o777:04o})", f"'chmod 700 {place.path}'"
            )
        if place.uid not in {uid, 0}:
            return failure(check, f"{place.path} belongs to uid {place.uid}", f"'chown {uid} {place.path}'")
    return ok(check, "state, journal and sockets belong to the gateway alone")


def judge_keys(keys: tuple[FileFacts, ...], uid: int, fingerprint: str = "") -> Finding:
    """Whoever reads the CA's key can log in to every environment."""
    check = "site.keys"
    if not keys:
        return failure(check, "the host key and the user CA are not there", "'devgw init' makes them")
    for key in keys:
        if key.mode & _OTHERS:
            return failure(
                check,
                f"others may read {key.path} (mode {key.mode & 0o777:04o})",
                f"'chmod 600 {key.path}', and make a new key if somebody may have read it",
            )
        if key.uid not in {uid, 0}:
            return failure(check, f"{key.path} belongs to uid {key.uid}", f"'chown {uid} {key.path}'")
    host_key = f"; host key {fingerprint}" if fingerprint else ""
    return ok(check, f"{len(keys)} private keys, readable by the gateway alone{host_key}")


def judge_database(problem: str) -> Finding:
    """`problem` is what SQLite's own check found, or a schema that is not this version's."""
    check = "site.database"
    if problem:
        return failure(check, f"the database is not sound: {problem}", "stop devgw, and restore it from your backup")
    return ok(check, "the database is whole and of this version's schema")


def judge_journal(problem: str) -> Finding:
    """`problem` is the first record of the tail that does not follow from the one before it."""
    check = "site.journal"
    if problem:
        return failure(check, f"the journal's tail does not verify: {problem}", "'devgw audit verify' says more")
    return ok(check, "the journal's tail follows record by record")


def judge_troubles(troubles: tuple[str, ...]) -> Finding:
    """Name the first environment whose care failed; the gateway tries again by itself."""
    check = "site.environments"
    if troubles:
        more = f", and {len(troubles) - 1} more" if len(troubles) > 1 else ""
        return failure(
            check, f"{troubles[0]}{more}", "'devgw list' names each; mend the cause, devgw tries again itself"
        )
    return ok(check, "no environment gives the gateway trouble")


def judge_duties(fault: str) -> Finding:
    """A loop that died was begun again; one that stands still waits for something."""
    check = "site.duties"
    if fault:
        return warning(check, fault, "the gateway's log says why; 'systemctl restart devgw' if it does not go on")
    return ok(check, "what the gateway does by itself goes on")


def judge_service(service: ServiceFacts) -> Finding:
    """The account of the unit must reach the program and its Python, which a home directory keeps to its owner."""
    check = "site.service"
    message = f"systemd cannot start the gateway by {service.unit}: {service.obstacle}"
    if service.is_absent:
        return failure(
            check, message, "'systemctl edit devgw': an empty ExecStart=, then one with the path of the devgw you have"
        )
    if service.obstacle:
        return failure(
            check,
            message,
            "install devgw outside home directories and with the system's Python: docs/howto/install-devgw.md",
        )
    return ok(check, f"systemd starts {service.program} as {service.account}")


def judge_policy(site: SiteFacts) -> Finding:
    """A policy that does not load stops the gateway from starting."""
    check = "site.policy"
    if site.policy_error:
        return failure(
            check, f"the policy does not load: {site.policy_error}", f"'devgw policy check {site.policy_file}'"
        )
    return ok(check, f"the policy {site.policy_file} loads")


def judge_macs(opened: tuple[str, ...]) -> Finding:
    """Old clients need MACs that this gateway does not speak unless a site opens them."""
    check = "site.macs"
    if opened:
        return warning(
            check,
            f"server.macs permits {', '.join(opened)}, which are checked after decryption",
            "leave them out of server.macs once no client has libssh2 before 1.11: Debian 12's curl, old sshj and JSch",
        )
    return ok(check, "encrypt-then-MAC only; clients of libssh2 before 1.11 (Debian 12's curl) stay outside")


def judge_port(site: SiteFacts) -> Finding:
    """The one port is either free or a gateway's."""
    check = "site.port"
    if site.port_holder == "devgw":
        return ok(check, f"a gateway answers on port {site.port}")
    if site.port_holder:
        return failure(
            check, f"port {site.port} cannot be had: {site.port_holder}", "stop what is there, or set server.port"
        )
    return ok(check, f"port {site.port} is free for 'devgw serve'")


def judge_disks(disks: DiskFacts) -> Finding:
    """A size that nothing keeps is a promise to nobody; a disk that is nearly full soon fails its user's writes."""
    check = "site.disks"
    if disks.unkept:
        more = f", and {len(disks.unkept) - 1} more" if len(disks.unkept) > 1 else ""
        return warning(
            check, f"nothing keeps the size of a disk: {disks.unkept[0]}{more}", "mend that, then stop and start them"
        )
    if disks.nearly_full:
        more = f", and {len(disks.nearly_full) - 1} more" if len(disks.nearly_full) > 1 else ""
        return warning(check, f"nearly full: {disks.nearly_full[0]}{more}", "'devgw disk USER --size' makes one larger")
    if disks.leavable:
        hint = "set environments.disk_enforcement to auto, which makes new disks another way"
        return warning(check, f"project quotas bound only those who let them: {disks.leavable}", hint)
    without = f"{disks.unsized} without a size, which may fill the state directory" if disks.unsized else ""
    if disks.why_not:
        return ok(check, f"no disk gets a size here, for {disks.why_not}; {without or 'none is asked for'}")
    kept = f"{disks.kept} {'disk' if disks.kept == 1 else 'disks'} of a size that is kept"
    kept += f", new ones by {disks.way}" if disks.way else ""
    return ok(check, f"{kept}; {without}" if without else kept)
