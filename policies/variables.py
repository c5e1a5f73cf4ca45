"""Environment variables a client may set, and those that no policy may accept because they load or redirect code."""

import re
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import AfterValidator

REFUSED_VARIABLES = (
    "LD_*", "DYLD_*", "GCONV_PATH", "GLIBC_TUNABLES", "MALLOC_*", "NLSPATH", "LOCPATH",  # the dynamic loader and libc
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "IFS", "ENV", "BASH_*", "SHELLOPTS", "BASHOPTS", "PS4",
    "PROMPT_COMMAND", "CDPATH", "ZDOTDIR", "FPATH", "TMPDIR", "HOSTALIASES", "RESOLV_HOST_CONF", "RES_OPTIONS",
    "PYTHON*", "PERL*", "RUBY*", "NODE_*", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "LUA_*",  # interpreters
    "GIT_*", "SSH_*", "EDITOR", "VISUAL", "PAGER", "LESSOPEN", "LESSCLOSE", "BROWSER",  # programs started by others
    "CUDA_*", "NVIDIA_*", "JUPYTER_*", "DEVGW_*",  # what the gateway decides
)  # fmt: skip

_PATTERN = re.compile(r"[A-Za-z_*?][A-Za-z0-9_*?]{0,63}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def is_variable_name(name: str) -> bool:
    """Say whether this is a portable variable name; what is none is refused before patterns are asked."""
    return _NAME.fullmatch(name) is not None


def is_refused_always(name: str) -> bool:
    """Say whether setting this variable could load code or undo a decision."""
    return any(fnmatchcase(name, pattern) for pattern in REFUSED_VARIABLES)


def check_variable_pattern(text: str) -> str:
    """Accept a name or pattern that does not ask for a refused variable outright. Raises: ValueError."""
    if _PATTERN.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no variable name or pattern")
    if text in REFUSED_VARIABLES or is_refused_always(text.rstrip("*?") or text):
        raise ValueError(f"{text!r} can load or redirect code and is never accepted")
    return text


VariablePattern = Annotated[str, AfterValidator(check_variable_pattern)]
