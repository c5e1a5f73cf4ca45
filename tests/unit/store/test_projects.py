"""Numbers of projects in the store: an environment's own for as long as it has files, and never another's after it."""

from gateway.model import EnvironmentRef, UserName
from gateway.store.database import Database
from gateway.store.projects import ProjectTable
from gateway.store.renaming import rename_user
from gateway.store.users import Users

ALICE, BOB = EnvironmentRef.parse("alice"), EnvironmentRef.parse("bob")


def test_a_number_is_kept_and_never_given_again(database_url: str) -> None:
    """Asked twice it is the same; given up it is nobody's, also not after a new start."""
    table = ProjectTable(Database(database_url))
    first = table.allot(ALICE)
    assert first >= 1
    assert ProjectTable(Database(database_url)).allot(ALICE) == first
    assert (second := table.allot(BOB)) > first
    table.give_up(BOB)
    table.give_up(BOB)
    assert ProjectTable(Database(database_url)).allot(BOB) > second


def test_a_number_goes_with_its_user_to_another_name(database_url: str) -> None:
    """Also that of an environment that was deleted and has files."""
    database = Database(database_url)
    Users(database).ensure(UserName("alice"), uid_start=200_000)
    table = ProjectTable(database)
    number = table.allot(ALICE)
    rename_user(database, UserName("alice"), UserName("alicia"))
    assert table.allot(EnvironmentRef.parse("alicia")) == number
