"""`python -m devgw_runner` is `devgw-run`."""

from devgw_runner.cli import main

raise SystemExit(main())
