"""A Kubernetes cluster of two nodes on this machine, for tests: real programs, in namespaces of their own."""
