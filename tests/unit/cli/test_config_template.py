"""The devgw.toml that `devgw init` writes."""

import re
import tomllib
from pathlib import Path

from gateway.cli.config_template import write_template
from gateway.config import load_settings


def test_template_changes_nothing(tmp_path: Path) -> None:
    """As it is written, every setting has its default."""
    (tmp_path / "devgw.toml").write_text(write_template())
    environ = {"DEVGW_CONFIG_DIR": str(tmp_path)}
    assert load_settings(environ) == load_settings({"DEVGW_CONFIG_DIR": str(tmp_path / "nowhere")}).model_copy(
        update={"config_dir": tmp_path}
    )


def test_template_uncommented_is_the_defaults(tmp_path: Path) -> None:
    """Every key and default in it is real: without the '#' the file loads to the same settings."""
    settings = re.sub(r"^#(?=[a-z_]+ = )", "", write_template(), flags=re.MULTILINE)
    unset = re.sub(r"^(policy_file|path) = .*$", "", settings, flags=re.MULTILINE)
    assert tomllib.loads(unset)["server"]["port"] == 2222
    (tmp_path / "devgw.toml").write_text(unset)
    loaded = load_settings({"DEVGW_CONFIG_DIR": str(tmp_path)})
    assert loaded.model_dump(exclude={"config_dir"}) == load_settings({}).model_dump(exclude={"config_dir"})
