"""Checkpoints: one directory per step, complete or absent, verified by checksum."""

import warnings

# One process on purpose; torch would say so whenever a checkpoint is written or read.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
