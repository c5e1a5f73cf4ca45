"""Settings of the SSH server."""

import pytest
from pydantic import ValidationError

from gateway.config.ssh import MaxStartups, SshSettings


def test_max_startups_reads_sshds_spelling() -> None:
    """As in sshd_config."""
    assert SshSettings.model_validate({"max_startups": "5:50:20"}).max_startups == MaxStartups(
        begin=5, rate_percent=50, full=20
    )


@pytest.mark.parametrize(
    "field", [{"prot": 2222}, {"port": 70000}, {"max_auth_tries": 0}, {"max_startups": "5:500:20"}]
)
def test_a_wrong_setting_is_refused(field: dict[str, object]) -> None:
    """Misspelt or out of range."""
    with pytest.raises(ValidationError):
        SshSettings.model_validate(field)
