"""Start of the `devgw` command. The version is answered here, before anything heavy is imported."""

import sys

_VERSION_QUESTIONS = (["--version"], ["version"])


def main() -> int:
    """Run the command line of this process and return its exit code."""
    arguments = sys.argv[1:]
    if arguments in _VERSION_QUESTIONS:
        from gateway.version import VERSION

        sys.stdout.write(f"devgw {VERSION}\n")
        return 0
    from gateway.cli.program import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
