"""One file per subcommand of devgw-run; each takes its arguments and returns an exit code."""
