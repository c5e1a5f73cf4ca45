"""Names that may reach paths, labels and log lines: invariant 9."""

import pytest

from gateway.errors import UsageError
from gateway.model import EnvironmentRef, parse_user_name


@pytest.mark.parametrize("name", ["alice", "a", "a-1", "a" * 31])
def test_a_well_formed_name_is_taken(name: str):
    """Lower case letters, digits and hyphens, a letter first, 31 at most."""
    assert parse_user_name(name) == name


@pytest.mark.attack("B2", "a path, an option, control characters, other alphabets, a system account as a user name")
@pytest.mark.parametrize(
    "name",
    # paths, options, white space, control characters
    [
        "",
        "../alice",
        "alice/../bob",
        "-oProxyCommand=x",
        " alice",
        "alice\n",
        "al\0ice",
        "alice\x1b[31m",
        # other separators, upper case, too long, other alphabets
        "alice:bob",
        "alice.bob",
        "Alice",
        "a" * 32,
        "1alice",
        "älice",
        "\uff41lice",
        # accounts of the system
        "root",
        "nobody",
        "sshd",
    ],
)
def test_anything_else_is_refused(name: str):
    """The refusal is a usage error and repeats no more than forty characters, escaped."""
    with pytest.raises(UsageError) as refused:
        parse_user_name(name)
    assert "\x1b" not in refused.value.message
    assert "\n" not in refused.value.message


def test_a_handle_names_user_and_environment():
    """`alice` is her main environment, `alice+proj` another; both read back as they were written."""
    assert str(EnvironmentRef.parse("alice")) == "alice"
    assert str(EnvironmentRef.parse("alice+proj")) == "alice+proj"
    assert EnvironmentRef.parse("alice+main") == EnvironmentRef.parse("alice")


@pytest.mark.attack("B2", "the same as the name of an environment")
@pytest.mark.parametrize("handle", ["alice+", "+proj", "alice+a+b", "alice+Proj", "alice+../x"])
def test_a_malformed_handle_is_refused(handle: str):
    """Both halves are names."""
    with pytest.raises(UsageError):
        EnvironmentRef.parse(handle)
