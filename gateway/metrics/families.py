"""Every metric family there is: name, kind, meaning and labels. docs/reference/metrics.md is made from this table.

Names and units are Prometheus' conventions (prometheus.io/docs/practices/naming). No label holds an address or a key.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

Kind = Literal["gauge", "counter", "histogram"]
AnyFamily = GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily


@dataclass(frozen=True, slots=True)
class Family:
    """A name with its meaning; `family.new()` holds samples of one scrape."""

    section: str
    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    def new(self) -> GaugeMetricFamily | CounterMetricFamily:
        """Return a family of gauges or counters without samples."""
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        return kind(self.name, self.help, labels=self.labels)

    def histogram(self, buckets: Sequence[tuple[str, float]], total: float) -> HistogramMetricFamily:
        """Return a histogram: each bucket with those below it, and the sum of what was observed."""
        return HistogramMetricFamily(self.name, self.help, buckets=buckets, sum_value=total)

    def empty(self) -> AnyFamily:
        """Return the family without samples, of whatever kind."""
        return HistogramMetricFamily(self.name, self.help) if self.kind == "histogram" else self.new()

    def of(self, value: float) -> AnyFamily:
        """Return the family with its one sample, where it has no labels."""
        family = self.new()
        family.add_metric([], value)
        return family

    @property
    def shown_name(self) -> str:
        """The name as it stands in the text: a counter's ends in `_total`."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


_GATEWAY, _PEOPLE, _ENVIRONMENTS = "The gateway", "Logins, connections and bytes", "Environments"
_GPUS, _NODES = "GPUs, leases and the queue", "Nodes"
_JOURNAL, _DISK = "The journal and what it counts", "Disk"

BUILD = Family(_GATEWAY, "devgw_build_info", "gauge", "Always 1; which devgw this is.", ("version",))
START_TIME = Family(_GATEWAY, "devgw_start_time_seconds", "gauge", "Unix time since which these numbers are counted.")
WORKERS = Family(_GATEWAY, "devgw_workers", "gauge", "Processes that serve the port, as the settings say.")
USERS = Family(_GATEWAY, "devgw_users", "gauge", "Users by state: enabled or disabled.", ("state",))
POLICY_LOADED = Family(
    _GATEWAY, "devgw_policy_loaded_timestamp_seconds", "gauge", "Unix time at which the policy in force was loaded."
)
DOCTOR_FINDINGS = Family(
    _GATEWAY, "devgw_doctor_findings", "gauge", "Findings of the doctor's last round, by level.", ("level",)
)
DOCTOR_FINDING = Family(
    _GATEWAY, "devgw_doctor_finding", "gauge", "1 for each check that is not ok, with its level.", ("check", "level")
)
DOCTOR_ROUND = Family(
    _GATEWAY, "devgw_doctor_round_timestamp_seconds", "gauge", "Unix time of the doctor's last round."
)
DUTY_RUN = Family(
    _GATEWAY,
    "devgw_duty_last_run_timestamp_seconds",
    "gauge",
    "Unix time at which a loop of the gateway last went round.",
    ("duty",),
)
BANS = Family(_GATEWAY, "devgw_bans", "gauge", "Sources that are shut out now.")
COLLECT_SECONDS = Family(_GATEWAY, "devgw_collect_seconds", "gauge", "Time it took to collect these numbers.")
COLLECT_ERRORS = Family(
    _GATEWAY, "devgw_collect_errors", "gauge", "1 for each part that could not be collected.", ("part",)
)

LOGINS = Family(
    _PEOPLE,
    "devgw_logins",
    "counter",
    "Logins by result: allowed, denied (by the policy), refused (no such user, or not a key of theirs).",
    ("result",),
)
CONNECTIONS = Family(_PEOPLE, "devgw_connections", "gauge", "SSH connections of logged-in users, of all workers.")
USER_CONNECTIONS = Family(_PEOPLE, "devgw_user_connections", "gauge", "The same by user.", ("user",))
CHANNELS = Family(_PEOPLE, "devgw_channels", "gauge", "Open channels and listeners by kind.", ("kind",))
CONNECTION_BYTES = Family(
    _PEOPLE,
    "devgw_connection_bytes",
    "counter",
    "Bytes of channels, counted while they flow: sent to users, received from them.",
    ("direction",),
)
CHANNEL_BYTES = Family(
    _PEOPLE,
    "devgw_channel_bytes",
    "counter",
    "Bytes of channels by kind, counted when a channel ends: sent to users, received from them.",
    ("kind", "direction"),
)

ENVIRONMENTS = Family(_ENVIRONMENTS, "devgw_environments", "gauge", "Environments by state.", ("state",))
TROUBLED = Family(
    _ENVIRONMENTS, "devgw_environments_troubled", "gauge", "Environments on which the gateway last failed."
)
WAKE_SECONDS = Family(
    _ENVIRONMENTS,
    "devgw_environment_wake_seconds",
    "histogram",
    "Time from a user's connection to a stopped environment until it answered.",
)

GPU_LABELS = ("UUID", "slice")
GPU = Family(
    _GPUS,
    "devgw_gpu_info",
    "gauge",
    "Always 1 for each GPU and MIG slice; UUID is the GPU's, slice the slice's or empty.",
    (*GPU_LABELS, "index", "model"),
)
GPUS = Family(
    _GPUS, "devgw_gpus", "gauge", "GPUs and slices that can be leased, by state: free, leased, quarantined.", ("state",)
)
LEASE = Family(
    _GPUS,
    "devgw_gpu_lease_info",
    "gauge",
    "Always 1 for each lease. Its UUID is dcgm-exporter's, so the two join.",
    (*GPU_LABELS, "user", "environment"),
)
LEASE_START = Family(
    _GPUS, "devgw_gpu_lease_start_timestamp_seconds", "gauge", "Unix time at which the lease began.", GPU_LABELS
)
LEASE_END = Family(
    _GPUS, "devgw_gpu_lease_end_timestamp_seconds", "gauge", "Unix time at which it ends, if it does.", GPU_LABELS
)
LEASED_SECONDS = Family(_GPUS, "devgw_gpu_leased_seconds", "counter", "GPU seconds leased, by user.", ("user",))
USED_SECONDS = Family(
    _GPUS, "devgw_gpu_used_seconds", "counter", "GPU seconds in which a leased GPU computed, by user.", ("user",)
)
UTILIZATION = Family(_GPUS, "devgw_gpu_utilization_ratio", "gauge", "Load of a GPU, 0 to 1.", GPU_LABELS)
MEMORY_USED = Family(_GPUS, "devgw_gpu_memory_used_bytes", "gauge", "GPU memory in use.", GPU_LABELS)
MEMORY_SIZE = Family(_GPUS, "devgw_gpu_memory_size_bytes", "gauge", "GPU memory there is.", GPU_LABELS)
POWER = Family(_GPUS, "devgw_gpu_power_watts", "gauge", "Power drawn by a GPU.", GPU_LABELS)
TEMPERATURE = Family(_GPUS, "devgw_gpu_temperature_celsius", "gauge", "Temperature of a GPU.", GPU_LABELS)
XID_ERRORS = Family(
    _GPUS, "devgw_gpu_xid_errors", "counter", "Critical errors that took a GPU out of use.", (*GPU_LABELS, "xid")
)
QUEUE_LENGTH = Family(_GPUS, "devgw_gpu_queue_length", "gauge", "Environments that wait for a GPU.")
QUEUE_OLDEST = Family(
    _GPUS, "devgw_gpu_queue_oldest_wait_seconds", "gauge", "How long the one that waits longest has waited; 0: none."
)
QUEUE_WAIT = Family(
    _GPUS, "devgw_gpu_queue_wait_seconds", "histogram", "How long those waited who got a GPU from the queue."
)

_OF_NODE = ("node",)
NODE_READY = Family(_NODES, "devgw_node_ready", "gauge", "1 while a node answers its engine, else 0.", _OF_NODE)
NODE_TAKES_NEW = Family(
    _NODES, "devgw_node_takes_new", "gauge", "1 while a node gets new environments; 0 when drained.", _OF_NODE
)
NODE_GPUS = Family(_NODES, "devgw_node_gpus", "gauge", "GPUs and slices of a node.", _OF_NODE)
NODE_USED_GPUS = Family(_NODES, "devgw_node_used_gpus", "gauge", "Those that its environments have.", _OF_NODE)
NODE_ENVIRONMENTS = Family(
    _NODES, "devgw_node_environments", "gauge", "Running environments of a node, as of the last minute.", _OF_NODE
)

EVENTS = Family(_JOURNAL, "devgw_journal_events", "counter", "Records of the journal by code.", ("code",))
DECISIONS = Family(
    _JOURNAL,
    "devgw_decisions",
    "counter",
    "Decisions of the policy by action and outcome.",
    ("action", "outcome"),
)
JOURNAL_LAG = Family(
    _JOURNAL,
    "devgw_journal_lag_seconds",
    "gauge",
    "How long the last batch took to be on disk, or the oldest that is not has waited (first worker).",
)
JOURNAL_LAST = Family(
    _JOURNAL, "devgw_journal_last_record_timestamp_seconds", "gauge", "Unix time of the journal's last record."
)
JOURNAL_HEAD = Family(
    _JOURNAL, "devgw_journal_head_timestamp_seconds", "gauge", "Unix time of the head that was signed last."
)
JOURNAL_BYTES = Family(_JOURNAL, "devgw_journal_size_bytes", "gauge", "Size of the journal's segments.")

DISK_FREE = Family(_DISK, "devgw_disk_free_bytes", "gauge", "Free space where a directory lies.", ("directory",))
DISK_SIZE = Family(_DISK, "devgw_disk_size_bytes", "gauge", "Size of the file system it lies on.", ("directory",))
USER_DISK = Family(
    _DISK, "devgw_user_disk_bytes", "gauge", "Disk that a user's files take, as of the last count.", ("user",)
)
_OF_ENVIRONMENT = ("user", "environment")
ENVIRONMENT_DISK_SIZE = Family(
    _DISK, "devgw_environment_disk_size_bytes", "gauge", "Size of an environment's own disk (the 250 fullest).",
    _OF_ENVIRONMENT,
)  # fmt: skip
ENVIRONMENT_DISK_USED = Family(
    _DISK, "devgw_environment_disk_used_bytes", "gauge", "What of it is used.", _OF_ENVIRONMENT
)
ENVIRONMENT_DISK_INODES = Family(
    _DISK, "devgw_environment_disk_inodes", "gauge", "How many files and directories it can hold.", _OF_ENVIRONMENT
)
ENVIRONMENT_DISK_USED_INODES = Family(
    _DISK, "devgw_environment_disk_used_inodes", "gauge", "How many it holds.", _OF_ENVIRONMENT
)

FAMILIES: tuple[Family, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Family))


def reference() -> str:
    """Return docs/reference/metrics.md's tables."""
    sections = list(dict.fromkeys(family.section for family in FAMILIES))
    return "\n".join(f"## {section}\n{_table([f for f in FAMILIES if f.section == section])}" for section in sections)


def _table(families: Sequence[Family]) -> str:
    rows = (f"| `{one.shown_name}` | {one.kind} | {_labels(one)} | {one.help} |" for one in families)
    return "\n".join(("| Name | Kind | Labels | Meaning |", "|---|---|---|---|", *rows, ""))


def _labels(family: Family) -> str:
    return " ".join(f"`{label}`" for label in family.labels)
