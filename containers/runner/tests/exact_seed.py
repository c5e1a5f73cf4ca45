"""The seed of the exact-resume tests: EXACT_SEED repeats one; each run prints its own."""

import os
import random

# Every worker of a parallel run must choose the same sample.
SEED = int(os.environ.get("EXACT_SEED") or random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID")).randrange(2**31))
WHOLE = os.environ.get("EXACT") == "all"
