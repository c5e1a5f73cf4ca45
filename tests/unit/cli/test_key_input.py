"""Key files, however an editor saved them."""

import codecs
import subprocess
from pathlib import Path

import pytest

from gateway.cli.key_input import read_public_key
from gateway.errors import UsageError

FORMS = {
    "no newline at the end": lambda line: line.encode(),
    "CRLF": lambda line: f"{line}\r\n".encode(),
    "CR alone": lambda line: f"{line}\r".encode(),
    "blank lines and spaces": lambda line: f"\n  {line}  \n\n".encode(),
    "a comment above": lambda line: f"# my key\r\n{line}\r\n".encode(),
    "UTF-8 with a mark": lambda line: codecs.BOM_UTF8 + f"{line}\r\n".encode(),
    "UTF-16 as PowerShell writes it": lambda line: codecs.BOM_UTF16_LE + f"{line}\r\n".encode("utf-16-le"),
    "UTF-16, the other order": lambda line: codecs.BOM_UTF16_BE + line.encode("utf-16-be"),
    "UTF-16 without a mark": lambda line: line.encode("utf-16-le"),
    "UTF-16 without a mark, the other order": lambda line: line.encode("utf-16-be"),
}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("key") / "id"
    made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "alice@überall", "-f", str(path)]
    subprocess.run(made, check=True, timeout=60)
    return path.with_suffix(".pub").read_text().strip()


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_read_however_an_editor_saved_it(tmp_path: Path, line: str, form: str) -> None:
    """The same key comes out, with its comment."""
    plain, saved = tmp_path / "plain.pub", tmp_path / "saved.pub"
    plain.write_text(f"{line}\n")
    saved.write_bytes(FORMS[form](line))
    assert read_public_key(str(saved)) == read_public_key(str(plain))
    assert read_public_key(str(saved)).comment == "alice@überall"


def test_a_picture_is_still_not_text(tmp_path: Path) -> None:
    """One line, and the file's name in it."""
    (tmp_path / "photo.jpg").write_bytes(bytes([0xFF, 0xD8, 0xFF, 0xE0]) * 9)
    with pytest.raises(UsageError, match=r"photo\.jpg: this is not text"):
        read_public_key(str(tmp_path / "photo.jpg"))
