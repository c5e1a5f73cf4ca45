"""A gateway in a directory or a tar stream, made while it serves, and put back on a machine that has nothing."""
