"""Makes the environment's own package importable: images have it installed, the gateway has not."""

import sys
from pathlib import Path

ENVIRONMENT_SOURCES = Path(__file__).resolve().parents[3] / "containers" / "image" / "environment"
sys.path.insert(0, str(ENVIRONMENT_SOURCES))
