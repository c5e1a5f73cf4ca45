"""The `devgw` command: one file per command or noun. What a command does is the work of the rooms below."""
