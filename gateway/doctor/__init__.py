"""Says what is wrong with a host or an environment, and what to do about it.

`gather` asks the machine and judges nothing; the other files judge and ask nothing, so that each judgement is a table
in tests/unit/doctor. Every check is explained in docs/reference/doctor.md.
"""
