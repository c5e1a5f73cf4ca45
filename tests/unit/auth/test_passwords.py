"""Notebook passwords."""

import math

import pytest

from gateway.auth.passwords import begin_hash, hash_password, make_password, verify_password
from gateway.errors import AuthError

COST = 4  # bcrypt's least, for speed


def test_a_made_password_is_strong_and_readable() -> None:
    """At least 80 bits, in groups, without letters that are mistaken for each other."""
    made = {make_password() for _ in range(100)}
    assert len(made) == 100
    letters = set("".join(made)) - {"-"}
    assert not letters & set("0o1il")
    assert all(len(password.replace("-", "")) * math.log2(31) >= 80 for password in made)


def test_a_hash_verifies_its_password_alone() -> None:
    """And two hashes of one password differ."""
    first, second = (hash_password("correct horse", COST) for _ in range(2))
    assert first != second
    assert verify_password("correct horse", first)
    assert not verify_password("correct hors", first)
    assert not verify_password("", first)


def test_72_bytes_are_the_limit_counted_in_utf8() -> None:
    """Bcrypt would silently ignore the rest."""
    assert verify_password("é" * 36, hash_password("é" * 36, COST))
    with pytest.raises(AuthError, match="74 bytes and bcrypt takes 72"):
        hash_password("é" * 37, COST)
    assert not verify_password("é" * 36 + "x", hash_password("é" * 36, COST))


@pytest.mark.parametrize(("password", "code"), [("", "password.empty"), ("a\0b", "password.nul")])
def test_what_bcrypt_cannot_hash_is_refused(password: str, code: str) -> None:
    """Empty passwords and NUL bytes."""
    with pytest.raises(AuthError) as refused:
        hash_password(password, COST)
    assert refused.value.code == code


def test_a_hash_begun_is_there_when_it_is_asked_for() -> None:
    """Each time it is asked; and what bcrypt cannot hash is refused before anything else is done."""
    bcrypt_hash = begin_hash("correct horse", COST)
    assert verify_password("correct horse", bcrypt_hash())
    assert bcrypt_hash() == bcrypt_hash()
    with pytest.raises(AuthError, match="empty"):
        begin_hash("", COST)


def test_a_damaged_hash_verifies_nothing() -> None:
    """A hash file cut short locks out, it does not let in."""
    assert not verify_password("x", "$2b$04$short")
    assert not verify_password("x", "")
