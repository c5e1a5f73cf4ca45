"""`${localWorkspaceFolder}` and the like in a project's file (containers.dev, "Variables in devcontainer.json")."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

_VARIABLE = re.compile(r"\$\{([A-Za-z]+)(?::([^}:]*))?(?::([^}]*))?\}")


def substitute(text: str, folder: Path, variables: Mapping[str, str]) -> str:
    """Put in what is known; what is not known stays as it is, for the shell.

    A person's own machine is not seen from here: `localEnv` is asked of the environment, and both workspace folders
    are the project's.
    """

    def value(match: re.Match[str]) -> str:
        name, variable, default = match[1], match[2], match[3]
        if name in {"localEnv", "containerEnv", "env"} and variable:
            return variables.get(variable, default or "")
        if variable is not None:
            return match[0]
        return known.get(name, match[0])

    known = {
        "localWorkspaceFolder": str(folder),
        "containerWorkspaceFolder": str(folder),
        "localWorkspaceFolderBasename": folder.name,
        "containerWorkspaceFolderBasename": folder.name,
        "devcontainerId": hashlib.sha256(str(folder).encode()).hexdigest()[:52],
    }
    return _VARIABLE.sub(value, text)
