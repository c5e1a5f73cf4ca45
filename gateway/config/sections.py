"""What can be set, by section. Each value has a safe default; the docstring says which is prudent."""

import re
import socket
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from gateway.config.quantities import Duration, Size, parse_duration
from gateway.config.ssh import SshSettings


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineSettings(_Section):
    """Which container engine runs the environments."""

    kind: Literal["auto", "docker", "bubblewrap", "kubernetes"] = "auto"
    """`auto` takes Docker when it answers, else bubblewrap; `kubernetes` has a section of its own."""
    docker_url: str = ""
    """Docker's API; empty: DOCKER_HOST, then unix:///var/run/docker.sock. Never taken from the docker CLI's context."""
    roots_dir: str = ""
    """Where bubblewrap keeps the images it builds; empty: `roots` in the state directory. Gateways may share it."""


class KubernetesSettings(_Section):
    """The cluster that runs the environments, where engine.kind is `kubernetes`."""

    namespace: str = Field(default="devgw", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    """Namespace of everything devgw makes; it exists already. Prudent: one for devgw alone."""
    kubeconfig: str = ""
    """Path of a kubeconfig; empty: the pod's service account, else KUBECONFIG, else ~/.kube/config."""
    context: str = ""
    """Context of the kubeconfig; empty: its current one."""
    image_prefix: str = ""
    """Registry put before the name of an image, such as `registry.example.org/`; empty: names as they are."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes ask the registry. Never: images are on the nodes already."""
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets with the registry's credentials."""
    home_class: str = ""
    """StorageClass of homes; empty: the cluster's default. Prudent: one whose volumes any node can mount."""
    home_size: Size = Field(default=50 * 2**30)
    """Size of a home's volume, which is also its limit."""
    work_class: str = ""
    """StorageClass of workspace, checkpoints and logs; empty: the cluster's default."""
    work_size: Size = Field(default=100 * 2**30)
    """Size of each of these three volumes."""
    access_mode: Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"] = "ReadWriteOnce"
    """How volumes may be mounted. ReadWriteMany where the class is shared storage, so that nodes change freely."""
    shared_dirs: tuple[Path, ...] = ()
    """Directories with one path on the gateway and on every node (NFS); what lies below is mounted, not claimed."""
    datasets: dict[str, str] = Field(default={})
    """Datasets by name: `pvc:CLAIM`, or a path on the nodes. They are mounted read-only."""
    gpu_resource: str = Field(default="nvidia.com/gpu", pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    """What the device plugin calls a whole GPU: `nvidia.com/gpu`, `amd.com/gpu`."""
    mig_resource_prefix: str = Field(default="nvidia.com/mig-", pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    """What stands before a MIG profile in the name of its resource."""
    gpu_model_label: str = Field(default="nvidia.com/gpu.product", pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    """The nodes' label with the model of their GPUs, as GPU feature discovery writes it."""
    node_selector: dict[str, str] = Field(default={})
    """Labels that a node must have to get environments."""
    runtime_class: str = ""
    """RuntimeClass of the pods, such as `nvidia`; empty: the cluster's default."""
    dns_servers: tuple[str, ...] = ()
    """Name servers of environments with egress; empty: the cluster's own."""
    pod_network: Literal["auto", "never"] = "auto"
    """Whether streams go over the pods' network where it leads to a pod, else by exec. never: all by exec."""
    gateway_namespace: str = Field(default="", pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$")
    """Namespace of the gateways' pods (`app.kubernetes.io/name: devgw`); these may reach environments' pods."""
    gateway_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks of gateways outside the cluster; these may reach environments' pods. Prudent: addresses, /32."""
    accept_unenforced_network: bool = False
    """Whether environments start although the cluster does not enforce NetworkPolicy. Prudent: false."""
    schedule_timeout: Duration = Field(default=5)
    """How long a pod may find no node; longer where an autoscaler adds nodes."""
    start_timeout: Duration = Field(default=600)
    """How long a pod may take to run, the transfer of its image included."""


class EnvironmentSettings(_Section):
    """What an environment is made of when `create` does not say."""

    image: str = "devgw/env:cpu"
    """Image of new environments."""
    memory: Size = Field(default=8 * 2**30)
    """Memory limit, equal to the swap limit."""
    cpus: float = Field(default=4.0, gt=0)
    """CPU limit; lowered to what the host has, where environments run on it."""
    pids: int = Field(default=4096, ge=64)
    """Limit on processes and threads."""
    egress: Literal["none", "internet"] = "none"
    """Connections an environment may open to the outside. Prudent: none."""
    read_only_root: bool = True
    """Whether the image's own files are read-only inside. Prudent: true."""
    uid_start: int = Field(default=200000, ge=1000)
    """First uid given to users when the gateway runs as root; a range no person on the host has."""
    start_timeout: Duration = Field(default=120)
    """Time until both sockets must answer."""
    stop_timeout: Duration = Field(default=10)
    """Time between SIGTERM and SIGKILL."""
    early_warning: Duration = Field(default=1800)
    """How long before an environment ends by itself its users are told for the first time."""
    late_warning: Duration = Field(default=300)
    """And for the second time; nothing is stopped sooner than so long after a first warning."""
    stop_grace: Duration = Field(default=300)
    """Time between the end of a lease, or of patience with an idle environment, and the request to save."""
    disk_enforcement: Literal["auto", "project-quota", "image", "none"] = "auto"
    """What keeps the size of a new disk. `auto`: project quotas where they hold, else ext4 images. Prudent: auto."""
    save_time: Duration = Field(default=60)
    """Time that running jobs have for a checkpoint before the environment is stopped."""


class GpuSettings(_Section):
    """Where the list of GPUs comes from."""

    inventory: Literal["auto", "nvml", "amd", "cdi", "none"] = "auto"
    """`auto` asks NVML, then what the kernel's amdgpu shows, and reads CDI specs where neither has a GPU."""
    cdi_spec_dirs: tuple[Path, ...] = (Path("/etc/cdi"), Path("/var/run/cdi"))
    """Directories with CDI specs; the same ones the engine reads."""
    sample_interval: Duration = Field(default=15)
    """How often `devgw serve` measures leased GPUs for `devgw usage`. Prudent: at most a minute."""
    keep_samples: Duration = Field(default=400 * 86400)
    """How long what was measured is kept."""
    start_wait: Duration = Field(default=60)
    """How long a starting gateway waits for GPUs that its environments hold; after a boot the driver may be late."""


class AuditSettings(_Section):
    """Where the journal's signed heads go, how long records are kept, and what recordings of terminals hold."""

    head_interval: Duration = Field(default=300)
    """How often the journal's end is signed and handed on, when it has moved."""
    head_file: str = ""
    """File to append heads to; it proves something only on another machine's disk. Empty: none."""
    head_syslog: bool = False
    """Whether heads are sent to syslog as well."""
    head_command: tuple[str, ...] = ()
    """Command that takes a head on its standard input, such as ssh to a log host; the prudent anchor. Empty: none."""
    timestamp_url: str = Field(default="", pattern=r"^(https?://\S+)?$")
    """A timestamp authority (RFC 3161) that stamps each head; needs `devgw[timestamps]`. Empty: none."""
    retention: Annotated[int, BeforeValidator(parse_duration), Field(ge=0)] = 0
    """Age at which sealed segments of the journal are removed; 0 keeps everything."""
    user_event_rate: Size = Field(default=128 * 2**10)
    """Bytes of journal a second that one user may cause for long, 32 times that at once; who causes more is slowed."""
    recording_cap: Size = Field(default=64 * 2**20)
    """Size at which the recording of a terminal stops."""
    record_input: bool = False
    """Whether recordings hold what was typed, passwords included. Prudent: false."""


class MetricsSettings(_Section):
    """Where the numbers for Prometheus go besides the socket `metrics.sock` in the run directory."""

    textfile: str = ""
    """File for node_exporter's textfile collector, its name ending in .prom. Empty: none."""
    interval: Duration = Field(default=15)
    """How often GPUs are measured and the files written. Prudent: Prometheus' own interval."""
    job_mapping_dir: str = ""
    """dcgm-exporter's DCGM_HPC_JOB_MAPPING_DIR: it gets a file for each leased GPU. Empty: none."""
    user_disk_interval: Annotated[int, BeforeValidator(parse_duration), Field(ge=0)] = 6 * 3600
    """How often the disk that each user's files take is counted, by `du`; 0: never."""


class EgressSettings(_Section):
    """How environments connect to hosts outside by name, where the policy's `egress_hosts` names any."""

    port: int = Field(default=3128, ge=1024, le=65535)
    """The loopback port inside an environment on which its tools find the gateway's proxy."""
    contact: str = Field(default="the administrator of this gateway", pattern=r"^[\x20-\x7e]{1,200}$")
    """Whom a user is told to ask when something is closed: a name, an address, a page. ASCII."""
    max_connections: int = Field(default=64, ge=1)
    """Connections that one user may have open at a time, over all environments."""
    connection_rate: float = Field(default=20.0, gt=0)
    """New connections a second that one user may begin for long; ten times as many at once."""
    idle_timeout: Duration = Field(default=600)
    """How long a connection may carry nothing before it is cut."""


class SiteSettings(_Section):
    """Several gateways with one PostgreSQL database and one state directory: what is theirs in common, and whose."""

    id: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9-]{0,30})?$")
    """Marks the site's environments in the engine, the same in all gateways; empty: made from the state directory."""
    instance: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9-]{0,30})?$")
    """This gateway's name among them; empty: this machine's, where the database is PostgreSQL."""
    keys_dir: str = ""
    """Directory of host keys, user CA and head key, the same in all gateways; empty: `keys` in the state directory."""
    gateways_dir: str = ""
    """Where each gateway keeps its own journal and recordings; empty: `gateways` in the state directory."""


class PageSettings(_Section):
    """The gateway's page, which whoever the policy lets reaches by `-L 9000:devgw:80`."""

    uid: int = Field(default=199999, ge=1000)
    """The account of the process that speaks HTTP, where the gateway is root; nobody else's, below `uid_start`."""
    idle_stop: Duration = Field(default=900)
    """How long nobody has the page open before its processes end; who comes next starts them."""
    keep_running: bool = False
    """Whether they start with the gateway and stay, for about 160 MB, so that nobody waits for them."""


class LogSettings(_Section):
    """How `devgw serve` writes its log, which goes to stderr and from there to systemd's journal."""

    format: Literal["text", "json"] = "text"
    """`json`: one object a line with the field names of the Elastic Common Schema, for a log shipper."""


class DatasetSettings(_Section):
    """One read-only dataset."""

    path: Path
    """Directory on the host."""


class Settings(_Section):
    """Everything in devgw.toml, and the four directories."""

    server: SshSettings = SshSettings()
    engine: EngineSettings = EngineSettings()
    kubernetes: KubernetesSettings = KubernetesSettings()
    environments: EnvironmentSettings = EnvironmentSettings()
    gpus: GpuSettings = GpuSettings()
    audit: AuditSettings = AuditSettings()
    metrics: MetricsSettings = MetricsSettings()
    page: PageSettings = PageSettings()
    log: LogSettings = LogSettings()
    egress: EgressSettings = EgressSettings()
    site: SiteSettings = SiteSettings()
    datasets: dict[str, DatasetSettings] = Field(default_factory=dict)
    config_dir: Path
    state_dir: Path
    run_dir: Path
    cache_dir: Path
    database_url: str = ""
    """Where state lies: postgresql+psycopg://USER@HOST/DATABASE; empty: SQLite in the state directory."""
    policy_file: Path | None = None
    """Policy; empty: policy.toml in the configuration directory, or the shipped default where there is none."""

    @field_validator("database_url")
    @classmethod
    def _of_a_known_kind(cls, value: str) -> str:
        """Refuse what is no URL of a known database, without repeating what may hold a password."""
        if value and not value.startswith(("postgresql+psycopg://", "postgresql://", "sqlite:")):
            raise ValueError("write postgresql+psycopg://USER@HOST/DATABASE, or nothing for SQLite")
        return value

    @model_validator(mode="after")
    def _several_only_on_a_server(self) -> Self:
        """Refuse a gateway among several whose database is a file."""
        if self.site.instance and not self.database_url.startswith("postgresql"):
            raise ValueError("site.instance is for several gateways, and needs a database_url of PostgreSQL")
        return self

    @property
    def instance(self) -> str:
        """This gateway's name among those of its site; empty where there are no others."""
        if not self.database_url.startswith("postgresql"):
            return ""
        host = re.sub(r"[^a-z0-9-]", "-", socket.gethostname().partition(".")[0].lower()).strip("-")
        return self.site.instance or host[:31] or "gateway"

    @property
    def gateways_dir(self) -> Path:
        return Path(self.site.gateways_dir) if self.site.gateways_dir else self.state_dir / "gateways"

    @property
    def own_dir(self) -> Path:
        """What is this gateway's alone, where others of its site share the state directory."""
        return self.gateways_dir / self.instance if self.instance else self.state_dir

    @property
    def journals(self) -> dict[str, Path]:
        """The journal of each gateway of the site, by its name; this one's is there in any case."""
        found = sorted(self.gateways_dir.glob("*/journal")) if self.instance else []
        return {path.parent.name: path for path in found} | {self.instance: self.journal_dir}

    @property
    def all_journals(self) -> Path:
        """What stands for the journals of all gateways of the site, or for the only one."""
        return self.gateways_dir if self.instance else self.journal_dir

    @property
    def config_file(self) -> Path:
        return self.config_dir / "devgw.toml"

    @property
    def keys_dir(self) -> Path:
        return Path(self.site.keys_dir) if self.site.keys_dir else self.state_dir / "keys"

    @property
    def journal_dir(self) -> Path:
        return self.own_dir / "journal"

    @property
    def last_head_file(self) -> Path:
        """The head that was signed last; beside the journal's directory, so that who writes there cannot write it."""
        return self.own_dir / "journal_head.last"

    @property
    def timestamps_file(self) -> Path:
        """What a timestamp authority said of each head."""
        return self.own_dir / "journal_heads.timestamps"

    @property
    def journal_name(self) -> str:
        """The journal's name in its heads, given when their key is made."""
        host = self.server.public_host or socket.gethostname()
        return re.sub(r"[^A-Za-z0-9./_-]", "-", f"{host}/devgw").lstrip("./_-")

    @property
    def policies_dir(self) -> Path:
        """Every policy that was in force; inside the journal's directory, so that a copy of that answers for both."""
        return self.journal_dir / "policies"

    @property
    def recordings_dir(self) -> Path:
        return self.own_dir / "recordings"

    @property
    def duties_file(self) -> Path:
        return self.own_dir / "duties.json"

    @property
    def metrics_socket(self) -> Path:
        return self.run_dir / "metrics.sock"

    @property
    def page_socket(self) -> Path:
        return self.run_dir / "page.sock"

    @property
    def page_seal(self) -> Path:
        """What proves to the page who is behind a connection; for the gateway's own account."""
        return self.run_dir / "page.seal"

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.state_dir / 'devgw.db'}"
