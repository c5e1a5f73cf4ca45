"""What the tests of several rooms share: gateways and environments to test against, and clients of theirs."""
