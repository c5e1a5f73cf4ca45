"""Heads stamped by an authority (RFC 3161): openssl behind HTTP on loopback, with a root of its own."""

import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.audit.event import Event
from gateway.audit.schedule import to_file
from gateway.audit.timestamps import prove_stamped, read_roots, read_timestamps, to_timestamp
from gateway.cli.program import run
from gateway.config import load_settings
from gateway.errors import JournalError, NotProvenError
from gateway.model import GATEWAY
from tests.cli.site import Site, SiteApp

NOTE = "gw/devgw\n12\nAAAA\n\n\N{EM DASH} gw/devgw AAAA\n"
LATER = NOTE.replace("\n12\n", "\n13\n")
CONFIGURATION = """
[ req ]
distinguished_name = none
[ none ]
[ tsa ]
default_tsa = it
[ it ]
serial = ./serial
signer_cert = ./tsa.pem
signer_key = ./tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
ess_cert_id_alg = sha256
[ leaf ]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
[ root ]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign
"""


class Authority:
    """A timestamp authority with a root in `ca.pem`; `answer` replaces what it says."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.answer: bytes | None = None
        (directory / "tsa.cnf").write_text(CONFIGURATION)
        (directory / "serial").write_text("01\n")
        new = ["req", "-config", "tsa.cnf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        self._openssl(*new, "-x509", "-extensions", "root", "-subj", "/CN=root", "-keyout", "ca.key", "-out", "ca.pem")
        self._openssl(*new, "-subj", "/CN=tsa", "-keyout", "tsa.key", "-out", "tsa.csr")
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "tsa.cnf", "-extensions", "leaf"]
        self._openssl("x509", "-req", "-in", "tsa.csr", *signed, "-out", "tsa.pem")

    def reply(self, query: bytes) -> bytes:
        if self.answer is not None:
            return self.answer
        (self.directory / "query").write_bytes(query)
        self._openssl("ts", "-reply", "-config", "tsa.cnf", "-queryfile", "query", "-out", "reply")
        return (self.directory / "reply").read_bytes()

    @property
    def root(self) -> Path:
        return self.directory / "ca.pem"

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True, timeout=60)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def url(authority: Authority) -> Iterator[str]:
    class Door(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/timestamp-query"
            reply = authority.reply(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_arguments: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_stamped_head_is_proven_to_have_existed(authority: Authority, url: str, tmp_path: Path) -> None:
    stamp = to_timestamp(url, tmp_path / "stamps")
    for note in (NOTE, LATER):
        stamp(note)
    found = prove_stamped([NOTE, LATER], read_timestamps(tmp_path / "stamps"), read_roots(authority.root))
    assert (found.stamped, found.heads) == (2, 2)


def test_a_stamp_of_another_head_or_by_another_authority_is_a_finding(
    authority: Authority, url: str, tmp_path: Path
) -> None:
    """Whoever writes the file can name any head beside a response."""
    file = tmp_path / "stamps"
    to_timestamp(url, file)(NOTE)
    (responses,) = read_timestamps(file).values()
    moved = dict.fromkeys(read_timestamps(file), responses)
    to_timestamp(url, file)(LATER)
    later = next(name for name in read_timestamps(file) if name not in moved)
    with pytest.raises(JournalError, match="does not prove it"):
        prove_stamped([LATER], {later: responses}, read_roots(authority.root))
    other = Authority(tmp_path / "other")
    with pytest.raises(JournalError, match="does not prove it"):
        prove_stamped([LATER], read_timestamps(file), read_roots(other.root))


def test_a_newest_head_without_a_stamp_is_not_proven(authority: Authority, url: str, tmp_path: Path) -> None:
    to_timestamp(url, tmp_path / "stamps")(NOTE)
    with pytest.raises(NotProvenError, match="the newest head has no timestamp"):
        prove_stamped([NOTE, LATER], read_timestamps(tmp_path / "stamps"), read_roots(authority.root))


@pytest.mark.parametrize("answer", [b"", b"no", bytes.fromhex("30053003020102"), bytes(1 << 20)])
def test_an_answer_that_holds_no_timestamp_is_a_failure_and_nothing_is_kept(
    authority: Authority, url: str, tmp_path: Path, answer: bytes
) -> None:
    """Empty, none of RFC 3161, a refusal, one without end."""
    authority.answer = answer
    with pytest.raises(OSError, match="timestamp authority"):
        to_timestamp(url, tmp_path / "stamps")(NOTE)
    assert not (tmp_path / "stamps").exists()


def test_an_authority_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="gave no answer"):
        to_timestamp("http://127.0.0.1:9/", tmp_path / "stamps")(NOTE)


@pytest.mark.parametrize("content", [b"no JSON\n", b'{"head": 1}\n', b'{"head": "a", "response": "%"}\n', b"[]\n"])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "stamps"
    file.write_bytes(content)
    with pytest.raises(JournalError, match="no timestamp"):
        read_timestamps(file)
    with pytest.raises(JournalError, match="PEM"):
        read_roots(file)


def test_verify_says_since_when_the_newest_head_exists(
    site: Site, authority: Authority, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The heads are what the gateway signs, the stamps what its sink kept."""
    gateway = SiteApp(load_settings(), site.engine, site.builder, site.daemon)
    gateway.head_signer.ensure_key()
    gateway.journal.append(Event("gateway.started", GATEWAY))
    _head, note = gateway.head_signer.sign()
    gateway.journal.close()
    heads, stamps = tmp_path / "heads", tmp_path / "stamps"
    to_file(heads)(note)
    asked = ["audit", "verify", "--head", str(heads), "--timestamps", str(stamps), "--tsa", str(authority.root)]
    stamps.touch()
    assert run(asked) == 7
    to_timestamp(url, stamps)(note)
    capsys.readouterr()
    assert run([*asked, "-o", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["stamped_heads"], said["heads"], said["ok"]) == (1, 1, True)
    assert run(["audit", "verify", "--timestamps", str(stamps)]) == 2
