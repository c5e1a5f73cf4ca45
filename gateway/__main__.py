"""Start of the `devgw` command. The version is answered here, before anything heavy is imported."""

import gc
import sys

_VERSION_QUESTIONS = (["--version"], ["version"])
_MANY_OBJECTS = 50_000
"""Between two looks of the garbage collector: modules last, and looking through them took a third of a command."""


def main() -> int:
    """Run the command line of this process and return its exit code."""
    arguments = sys.argv[1:]
    if arguments in _VERSION_QUESTIONS:
        from gateway.version import VERSION

        sys.stdout.write(f"devgw {VERSION}\n")
        return 0
    gc.set_threshold(_MANY_OBJECTS, 10, 10)
    from gateway.cli.program import run

    code = run(arguments)
    gc.freeze()  # the process ends; nothing need be looked through once more
    return code


if __name__ == "__main__":
    sys.exit(main())
