"""Many runs of one task: which settings are tried, in which order, and which are given up early."""
