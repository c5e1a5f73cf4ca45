"""What is wrong with a project's file, in words for its user."""


class ProjectError(Exception):
    """A file or an order that cannot be used; `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
