"""Every event code the journal can hold, with what it means. Codes are stable: they are added, never reused.

A decision at the gate has the code `<action>.allowed` or `<action>.denied`; all else is a fact in the past tense.
"""

from typing import Final

DECISIONS: Final[dict[str, str]] = {
    "login": "to log in, with this key, from this address, at this time",
    "session": "to open a session channel; `kind` is shell, exec or sftp",
    "forward": "to open a TCP channel into the environment (`-L`, `-D`)",
    "reverse-forward": "to listen inside the environment (`-R`)",
    "streamlocal": "to reach or create a Unix socket inside the environment",
    "agent-forwarding": "to forward the user's agent",
    "variable": "to set an environment variable",
    "create": "to have such an environment created",
}

FACTS: Final[dict[str, str]] = {
    "login.refused": "A login failed before any policy was asked: no such user, or not a key of theirs.",
    "connection.closed": "An SSH connection of a logged-in user ended.",
    "channel.refused": "X11, a tunnel, a subsystem other than sftp or an impossible name: asked for and never given.",
    "session.opened": "A shell, command or sftp channel was opened.",
    "session.closed": "It ended, with its exit code and byte counts.",
    "session.killed": "An administrator ended a user's connections.",
    "session.failed": "A user's connections could not be ended; `reason` says why.",
    "session.revoked": "The gateway ended what a changed policy, key or user no longer allows.",
    "session.recorded": "The recording of a terminal was finished.",
    "forward.opened": "A TCP channel into the environment was opened.",
    "forward.closed": "It ended, with its byte counts and the reason.",
    "sftp.opened": "A file was opened through sftp, for reading or writing.",
    "sftp.closed": "It was closed, with its byte counts.",
    "sftp.removed": "A file was removed through sftp.",
    "sftp.renamed": "A file was renamed through sftp.",
    "sftp.made-directory": "A directory was made through sftp.",
    "sftp.removed-directory": "A directory was removed through sftp.",
    "sftp.linked": "A link was made through sftp.",
    "sftp.attributes-set": "Owner, mode, times or size of a file were set through sftp.",
    "environment.cut": "The gateway cut its connection to one that does not read or answer; `reason` says why.",
    "environment.created": "An environment was made; `datasets` says what is mounted in it.",
    "environment.started": "An environment was started by an administrator or its user.",
    "environment.woken": "A stopped environment was started because its user connected.",
    "environment.stopped": "An environment was stopped; `reason` says why.",
    "environment.deleted": "An environment was removed.",
    "environment.failed": "An environment could not be made, started, kept running, looked after or removed.",
    "environment.orphaned": "The engine has an environment that the store does not know; it was left alone.",
    "environment.reaped": "Such an environment was removed on demand.",
    "environment.warned": "A user was told that an environment will stop; `reason` says why and when.",
    "environment.healed": "An environment whose GPU was lost was made anew, with its files.",
    "environment.adopted": "An environment found at the engine was taken over after a restart.",
    "password.failed": "A notebook password could not be replaced.",
    "password.changed": "A notebook password was replaced.",
    "notebook.refused": "A login at the notebook failed.",
    "host-key.announced": "A next host key was made; clients learn it when they connect.",
    "host-key.rotated": "The next host key came into use; `previous` is the fingerprint of the one before.",
    "host-key.failed": "A host key could not be made or put into use; `reason` says why.",
    "key.added": "A public key was given to a user.",
    "key.removed": "A public key was taken from a user.",
    "key.failed": "A public key could not be given or taken; `reason` says why.",
    "user.created": "A user was made.",
    "user.disabled": "A user was disabled; their sessions ended.",
    "user.enabled": "A user was enabled again.",
    "user.failed": "A user could not be made, disabled or enabled; `reason` says why.",
    "user.expired": "A user's last grant ended.",
    "lease.granted": "A GPU was leased to an environment.",
    "lease.queued": "A request for a GPU has to wait.",
    "lease.extended": "The end of a lease was moved.",
    "lease.released": "A GPU was given back.",
    "lease.failed": "A lease could not be changed; `reason` says why.",
    "lease.expired": "A lease ended by its time.",
    "policy.loaded": "A policy came into force; `sha256` names its archived text, `changes` says what it changed.",
    "policy.refused": "A policy was not loaded and the running one stayed; `reason` names file, line and key.",
    "store.contradicted": "The database holds what no record explains, or lacks what one says; `kind` says which.",
    "gateway.started": "The gateway began to accept connections.",
    "gateway.stopped": "The gateway stopped, after a drain.",
    "disk.filled": "The gateway's disk is full; what must be written is, from the room that was set aside.",
    "disk.freed": "It has room again, and that room is set aside anew.",
    "source.banned": "An address, or one user name from it, was shut out for a time; `reason` says why.",
    "source.unbanned": "A ban was lifted before its time.",
    "image.built": "An image was built.",
    "gpu.lost": "A GPU stopped answering.",
    "gpu.quarantined": "A GPU was taken out of use; `reason` says why.",
    "gpu.restored": "A GPU was put back into use.",
    "gpu.failed": "A GPU could not be taken out of use or put back; `reason` says why.",
    "admin.acted": "An administrator ran a command that no other code describes.",
    "journal.opened": "A segment begins; `previous_seq` and `previous_hash` name the record it follows.",
    "journal.sealed": "A segment ends.",
    "journal.pruned": "Sealed segments were removed by age; `last_seq` and `last_hash` name the last record in them.",
    "journal.repaired": "An unfinished write, never acknowledged, was moved to `file`.",
    "journal.signed-anew": "An administrator had the end signed although it does not continue the head signed last.",
    "journal.head-failed": "A signed head could not be handed on; `reason` says why.",
}

CODES: Final[dict[str, str]] = FACTS | {
    f"{action}.{outcome}": f"A request {purpose} was {outcome}."
    for action, purpose in DECISIONS.items()
    for outcome in ("allowed", "denied")
}
"""All codes with one sentence each; docs/reference/audit-format.md lists the same."""
