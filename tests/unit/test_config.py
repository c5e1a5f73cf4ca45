"""Settings: precedence, places, and errors that name file and key."""

from pathlib import Path

import pytest

from gateway.config import default_directories, load_settings, parse_duration, parse_size
from gateway.errors import ConfigError


def environ(tmp_path: Path, **variables: str) -> dict[str, str]:
    return {"HOME": str(tmp_path), "DEVGW_CONFIG_DIR": str(tmp_path)} | variables


def test_variable_beats_file_beats_default(tmp_path: Path):
    """One key from each source."""
    (tmp_path / "devgw.toml").write_text("[server]\nport = 2022\nmax_sessions = 3\n")
    settings = load_settings(environ(tmp_path, DEVGW_SERVER_PORT="2023"))
    assert (settings.server.port, settings.server.max_sessions, settings.server.max_auth_tries) == (2023, 3, 6)


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[server]\nport = 70000\n", "server.port"),
        ("[server]\nprot = 22\n", "server.prot: is not a setting"),
        ("[environments]\nmemory = '16 gigs'\n", "environments.memory"),
        ("[server\n", "devgw.toml:1: expected"),
        ("[server]\nport = 1\nport = 2\n", "devgw.toml:3: port is there twice"),
        ("[environments]\nimage = devgw/env\n", "devgw.toml:2: what image is set to is no value of TOML"),
    ],
)
def test_an_error_names_file_and_key(tmp_path: Path, toml: str, words: str):
    """The administrator need not search."""
    (tmp_path / "devgw.toml").write_text(toml)
    with pytest.raises(ConfigError) as wrong:
        load_settings(environ(tmp_path))
    assert words in wrong.value.message
    assert str(tmp_path / "devgw.toml") in wrong.value.message


def test_an_error_in_a_variable_names_the_variable(tmp_path: Path):
    """The file is not to blame."""
    with pytest.raises(ConfigError, match=r"DEVGW_SERVER_PORT: server\.port"):
        load_settings(environ(tmp_path, DEVGW_SERVER_PORT="ssh"))


def test_a_list_of_directories_is_split_like_path(tmp_path: Path):
    """As in PATH."""
    settings = load_settings(environ(tmp_path, DEVGW_GPUS_CDI_SPEC_DIRS="/a:/b"))
    assert settings.gpus.cdi_spec_dirs == (Path("/a"), Path("/b"))


@pytest.mark.parametrize(
    ("variable", "text", "items"),
    [
        ("SERVER_CIPHERS", "aes256-ctr:aes128-ctr", ("aes256-ctr", "aes128-ctr")),
        ("SERVER_CIPHERS", "aes256-ctr, aes128-ctr", ("aes256-ctr", "aes128-ctr")),
        ("SERVER_KEX_ALGORITHMS", '["curve25519-sha256@libssh.org"]', ("curve25519-sha256@libssh.org",)),
        ("AUDIT_HEAD_COMMAND", "ssh:loghost", ("ssh", "loghost")),
        ("AUDIT_HEAD_COMMAND", "ssh,loghost", ("ssh", "loghost")),
        ("AUDIT_HEAD_COMMAND", "ssh -o 'User=a b' log:1", ("ssh", "-o", "User=a b", "log:1")),
        ("GPUS_CDI_SPEC_DIRS", "/a b,c:/d", (Path("/a b,c"), Path("/d"))),
    ],
)
def test_a_list_in_a_variable_is_read_as_documented(
    tmp_path: Path, variable: str, text: str, items: tuple[object, ...]
):
    """Colons as in PATH, commas, a shell's words for a command, or a TOML array."""
    settings = load_settings(environ(tmp_path, **{f"DEVGW_{variable}": text}))
    section, _, key = variable.lower().partition("_")
    assert getattr(getattr(settings, section), key) == items


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("DEVGW_SERVER_CIPHERS", "aes128-gcm@openssh.com:des"),
        ("DEVGW_SERVER_MACS", "[1,"),
        ("DEVGW_SERVER_MACS", ""),
        ("DEVGW_SERVER_MAX_STARTUPS", "10:x:100"),
        ("DEVGW_SERVER_PER_SOURCE_PENALTY_EXEMPT", "10.0.0.0/8:fd00::/8"),
        ("DEVGW_AUDIT_HEAD_COMMAND", "ssh 'log"),
    ],
)
def test_an_error_inside_a_list_names_the_variable(tmp_path: Path, variable: str, text: str):
    """The file, which may not even be there, is not to blame."""
    with pytest.raises(ConfigError, match=f"^{variable}: "):
        load_settings(environ(tmp_path, **{variable: text}))


def test_a_section_that_is_no_table_is_the_files_fault(tmp_path: Path):
    """Also where a variable would stand in it."""
    (tmp_path / "devgw.toml").write_text("server = 3\n")
    with pytest.raises(ConfigError, match=r"devgw\.toml: server"):
        load_settings(environ(tmp_path, DEVGW_SERVER_PORT="2023"))


def test_networks_are_read_and_a_list_of_them_is_split_at_commas(tmp_path: Path):
    """An IPv6 network has colons of its own; one with host bits is a mistake somebody should hear of."""
    networks = "10.0.0.0/8, fd00::/8"
    settings = load_settings(environ(tmp_path, DEVGW_SERVER_PER_SOURCE_PENALTY_EXEMPT=networks))
    assert [str(network) for network in settings.server.per_source_penalty_exempt] == networks.split(", ")
    with pytest.raises(ConfigError, match="per_source_penalty_exempt"):
        load_settings(environ(tmp_path, DEVGW_SERVER_PER_SOURCE_PENALTY_EXEMPT="10.0.0.1/8"))


def test_root_and_users_have_their_own_places():
    """The system's directories for root, XDG for everybody else, DEVGW_*_DIR above both."""
    assert default_directories({}, 0)["state_dir"] == Path("/var/lib/devgw")
    assert default_directories({"HOME": "/home/a"}, 1000)["state_dir"] == Path("/home/a/.local/state/devgw")
    assert default_directories({"DEVGW_STATE_DIR": "/s"}, 0)["state_dir"] == Path("/s")


@pytest.mark.parametrize(("text", "size"), [("16GiB", 16 * 2**30), ("1.5 MB", 1_500_000), ("7", 7), (9, 9)])
def test_sizes(text: object, size: int):
    """Binary and decimal units."""
    assert parse_size(text) == size


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("1h30m", 5400), ("7d", 604800), ("5s", 5), (3, 3)])
def test_durations(text: object, seconds: int):
    """Compound durations too."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "5 h", "-1h", "1h x"])
def test_malformed_durations_are_refused(text: str):
    """A bare number could be anything."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)
