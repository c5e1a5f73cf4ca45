"""More than one process: the group, data parallelism, sharding and its preflight."""
