"""How the wheel of devgw comes to carry the sources of the image: `devgw image build` works without a checkout.

Used by setuptools when it builds the wheel, see `[tool.setuptools.cmdclass]` in pyproject.toml; not installed.
"""

from pathlib import Path
from shutil import copytree, ignore_patterns

from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
LEFT_OUT = ignore_patterns("tests", "*.egg-info", "__pycache__", ".*_cache", ".venv")


class WithImage(build_py):
    """Copies `image/` and `runner/` to `gateway/containers/` in the wheel; an editable install finds them here."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in ("image", "runner"):
            target = Path(self.build_lib) / "gateway" / "containers" / name
            copytree(HERE / name, target, ignore=LEFT_OUT, dirs_exist_ok=True)
