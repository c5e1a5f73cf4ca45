"""Settings: where things are and how much of them. What is allowed is policy."""

from gateway.config.load import default_directories, load_settings
from gateway.config.quantities import Duration, Size, parse_duration, parse_size
from gateway.config.sections import AuditSettings, EnvironmentSettings, Settings
from gateway.config.ssh import SshSettings

__all__ = [
    "AuditSettings",
    "Duration",
    "EnvironmentSettings",
    "Settings",
    "Size",
    "SshSettings",
    "default_directories",
    "load_settings",
    "parse_duration",
    "parse_size",
]
