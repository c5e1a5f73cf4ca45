"""A user or an environment under another name, in the store, on the disk and in the journal."""

from gateway.environments.relocation import Relocation
from gateway.errors import ConflictError, UsageError
from gateway.model import EnvironmentRef, User, UserName
from gateway.operations.recorded import Recorded
from gateway.store.database import Database
from gateway.store.environments import EnvironmentTable
from gateway.store.renaming import rename_environment, rename_user
from gateway.store.users import Users


class RenameOperations:
    """An administrator's acts on names. What is renamed must be stopped."""

    def __init__(self, database: Database, relocation: Relocation, recorded: Recorded) -> None:
        self._database = database
        self._users = Users(database)
        self._table = EnvironmentTable(database)
        self._relocation = relocation
        self._recorded = recorded

    def rename_user(self, old: UserName, new: UserName) -> list[EnvironmentRef]:
        """Give a user another name; returns their environments, as they are called now.

        Raises: NotFoundError `user.not-found`; ConflictError `user.exists`, `environment.running`,
        `environment.files-in-the-way`, `user.name-used`; StoreError.
        """
        _require_lives_here(self._users.require_settled(old))
        if self._users.get(new) is not None:
            raise ConflictError("user.exists", f"there is a user {new} already", "choose another name")
        names = [one.ref.name for one in self._table.all(old)]
        with self._recorded.act("user.renamed", user=old, to=new):
            self._relocation.move_user(old, new, lambda: rename_user(self._database, old, new))
        for name in names:
            self._note(EnvironmentRef(old, name), EnvironmentRef(new, name))
        return [EnvironmentRef(new, name) for name in names]

    def rename_environment(self, old: EnvironmentRef, new: EnvironmentRef) -> EnvironmentRef:
        """Give an environment another name. Raises: as `rename_user`; UsageError `environment.other-user`."""
        if old.user != new.user:
            hint = f"'devgw rename {old.user} {new.user}' renames a user with all of theirs"
            raise UsageError("environment.other-user", f"{new} would be another user's", hint)
        self._table.require(old)
        self._users.require_settled(old.user)
        if self._table.get(new) is not None:
            raise ConflictError("environment.exists", f"{new} exists already", f"'devgw show {new}'")
        with self._recorded.failing("environment.renamed", str(old), to=str(new)):
            self._relocation.move_environment(old, new, lambda: rename_environment(self._database, old, new))
        self._note(old, new)
        return new

    def _note(self, old: EnvironmentRef, new: EnvironmentRef) -> None:
        self._recorded.note("environment.renamed", str(old), to=str(new))


def _require_lives_here(user: User) -> None:
    """Raises: ConflictError `user.closed`, for one who was moved to another host: the name says where to."""
    if user.closed_because:
        hint = f"'devgw user delete {user.name}' forgets them here"
        raise ConflictError("user.closed", f"{user.name} is not here any more: {user.closed_because}", hint)
