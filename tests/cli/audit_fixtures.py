"""Policies that transcripts try, and what can happen to a site's journal and database behind devgw's back."""

import shutil
import sqlite3
from pathlib import Path

from gateway.app.composition import App
from gateway.audit.event import Event
from gateway.audit.heads import Head, Signer
from gateway.audit.record import encode, finish
from gateway.auth.keys import parse_public_key
from gateway.model import Actor

LAB = """\
version = 1
default_roles = ["member"]

[roles.member]
sessions = ["shell", "exec", "sftp"]
permit_open = "any-loopback"
max_environments = 2
images = ["*"]
max_memory = "64GiB"
max_cpus = 16

[roles.vision]
description = "Project vision"
datasets = ["imagenet"]
max_gpus = 1

[[grants]]
users = ["alice"]
roles = ["member", "vision"]
until = 2099-12-31
reason = "asked for by Prof. Weber"

[[tests]]
user = "alice"
at = 2026-05-04T10:00:00Z
allow = ["login", "dataset imagenet", "forward localhost:6006"]
deny = ["forward 169.254.169.254:80"]

[[tests]]
user = "newcomer"
deny = ["dataset imagenet"]
"""
POLICIES = {
    "lab.toml": LAB,
    "narrow.toml": LAB.replace('permit_open = "any-loopback"', 'permit_open = "notebook"').replace(
        ', "forward localhost:6006"', ""
    ),
    "mistyped.toml": LAB.replace("permit_open", "permitopen"),
    "failing.toml": LAB.replace('datasets = ["imagenet"]', "datasets = []"),
    "port.toml": LAB.replace("version = 1", "version = 1\nnotebook_port = 9999"),
}


def write_policies(directory: Path) -> None:
    """Put every policy into a directory."""
    for name, text in POLICIES.items():
        (directory / name).write_text(text)


def edit_record(journal: Path) -> None:
    """Change one word of the last segment, as somebody with an editor would."""
    last = max(journal.glob("segment-*.jsonl"))
    last.write_text(last.read_text().replace('"user":"alice"', '"user":"carol"', 1))


def copy_without_last_record(journal: Path, to: Path) -> None:
    """Make a copy that ends one record early."""
    shutil.copytree(journal, to)
    last = max(to.glob("segment-*.jsonl"))
    last.write_bytes(b"".join(last.read_bytes().splitlines(keepends=True)[:-1]))


def swap_key(database: Path, user: str, line: str) -> None:
    """Put another key in the place of a user's, in the database file itself."""
    key = parse_public_key(line)
    with sqlite3.connect(database) as connection:
        connection.execute(
            "UPDATE public_keys SET fingerprint = ?, line = ? WHERE user = ?", (key.fingerprint, key.line, user)
        )
    connection.close()


def forge_pruned_copy(journal: Path, to: Path) -> None:
    """Make a copy whose records are all gone, behind a forged one that says they were pruned."""
    shutil.copytree(journal, to)
    for segment in to.glob("segment-*.jsonl"):
        segment.unlink()
    keeper, digest, lines = Actor("gateway", "journal"), b"\7" * 32, []
    opened = Event("journal.opened", keeper, detail={"previous_seq": 40, "previous_hash": digest.hex()})
    pruned = Event("journal.pruned", keeper, detail={"last_seq": 40, "last_hash": digest.hex()})
    for number, event in enumerate((opened, pruned, Event("login.allowed", Actor("user", "bob"))), 41):
        line, digest = finish(number, encode(event), digest)
        lines.append(line)
    (to / "segment-000000000041.jsonl").write_bytes(b"".join(lines))


def sign_nothing(app: App, to: Path) -> None:
    """Sign the head of a journal that has no record yet, as a gateway does that begins."""
    signer = app.head_key.load()
    to.write_text(signer.sign(Head(signer.verifier.name, 0, bytes(32))))
    to.with_name(f"{to.name}.pub").write_text(f"{signer.verifier}\n")


def add_head_of_another_key(heads: Path) -> None:
    """Append a head that somebody signed with a key of their own, under this journal's name."""
    signer = Signer.create(heads.with_name("theirs"), "gw.example.org/devgw")
    with heads.open("a") as file:
        file.write("\n" + signer.sign(Head("gw.example.org/devgw", 10, b"\1" * 32)))
