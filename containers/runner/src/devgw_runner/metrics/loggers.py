"""Send records to experiment trackers: Weights & Biases, MLflow, Aim. One small protocol, the same as a file sink's.

A tracker that fails is said once and left: a run does not end because a web service does. Secrets come from a
file (`--logger-secrets`) and go to the tracker's own variables in this process, nowhere else.
"""

import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devgw_runner.errors import UsageError
from devgw_runner.metrics.record import Record

IDENTITIES = "trackers.json"
SECRET_WORDS = ("secret", "token", "password", "api_key", "credential")
SECRET_VARIABLES = (
    "WANDB_API_KEY",
    "WANDB_BASE_URL",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_URI",
    "AIM_ACCESS_TOKEN",
)


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told about a run. `identity` is what it called this run before, empty at first."""

    name: str
    project: str
    directory: Path
    settings: Mapping[str, Any]
    uri: str | None = None
    identity: str = ""


class WandbLogger:
    """Weights & Biases. Without a key, or with WANDB_MODE=offline, it writes below the logs for `wandb sync`."""

    def __init__(self, run: TrackedRun) -> None:
        wandb = _import("wandb", "wandb")
        online = bool(os.environ.get("WANDB_API_KEY")) and os.environ.get("WANDB_MODE") != "offline"
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=run.identity or None,
            resume="allow",
            dir=str(run.directory),
            config=dict(run.settings),
            mode="online" if online else "offline",
            settings=wandb.Settings(
                console="off", disable_git=True, disable_code=True, silent=True, init_timeout=30, x_disable_stats=True
            ),
        )
        self.identity = str(self._run.id)

    def write(self, record: Record) -> None:
        self._run.log({**scalars_of(record), "trainer/step": record.step})

    def close(self) -> None:
        self._run.finish()


class MlflowLogger:
    """MLflow: a server by --logger-uri or MLFLOW_TRACKING_URI, else a database file below the logs."""

    def __init__(self, run: TrackedRun) -> None:
        _import("mlflow", "mlflow")
        from mlflow.tracking import MlflowClient

        uri = run.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.directory / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=uri)
        experiment = self._client.get_experiment_by_name(run.project)
        where = experiment.experiment_id if experiment else self._client.create_experiment(run.project)
        if run.identity:
            self.identity = run.identity
            self._client.update_run(run.identity, status="RUNNING")
        else:
            self.identity = self._client.create_run(where, run_name=run.name).info.run_id
            for name, value in run.settings.items():
                self._client.log_param(self.identity, name, str(value)[:6000])

    def write(self, record: Record) -> None:
        from mlflow.entities import Metric

        now = record.to_json()["time"]
        points = [Metric(name, value, int(now * 1000), record.step) for name, value in scalars_of(record).items()]
        self._client.log_batch(self.identity, metrics=points)

    def close(self) -> None:
        self._client.set_terminated(self.identity)


class AimLogger:
    """Aim: a repository by --logger-uri, else below the logs."""

    def __init__(self, run: TrackedRun) -> None:
        aim = _import("aim", "aim")
        repository = run.uri or str(run.directory / "aim")
        self._run = aim.Run(
            run_hash=run.identity or None,
            repo=repository,
            experiment=run.project,
            system_tracking_interval=None,
            capture_terminal_logs=False,
        )
        self._run.name = run.name
        self._run["settings"] = dict(run.settings)
        self.identity = str(self._run.hash)

    def write(self, record: Record) -> None:
        for name, value in scalars_of(record).items():
            subset, _, metric = name.partition("/")
            self._run.track(value, name=metric, step=record.step, epoch=record.epoch, context={"subset": subset})

    def close(self) -> None:
        self._run.close()


TRACKERS: dict[str, Callable[[TrackedRun], Any]] = {"wandb": WandbLogger, "mlflow": MlflowLogger, "aim": AimLogger}


@dataclass
class Guarded:
    """A logger whose failure is said once by `say`, and which is left then."""

    name: str
    logger: Any
    say: Callable[[str], None]
    failed: bool = field(default=False, init=False)

    def write(self, record: Record) -> None:
        self._attempt(lambda: self.logger.write(record))

    def close(self) -> None:
        self._attempt(self.logger.close)

    def _attempt(self, action: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            action()
        except Exception as exc:  # noqa: BLE001 - a tracker may fail in any way, and a run goes on without it
            self.failed = True
            self.say(f"logger {self.name} failed and is left: {first_line(exc)}")


def open_trackers(names: list[str], run: TrackedRun, say: Callable[[str], None]) -> list[Guarded]:
    """Open the named trackers; a resumed run goes on in the same one there.

    Raises:
        UsageError: one is not known or not installed.
    """
    kept = run.directory / IDENTITIES
    identities: dict[str, str] = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    opened = []
    for name in names:
        described = TrackedRun(**{**vars(run), "identity": identities.get(name, "")})
        try:
            tracker = TRACKERS[name](described)
        except UsageError:
            raise
        except Exception as exc:  # noqa: BLE001 - a tracker may fail in any way, and a run goes on without it
            say(f"logger {name} cannot start and is left: {first_line(exc)}")
            continue
        identities[name] = tracker.identity
        opened.append(Guarded(name, tracker, say))
    kept.write_text(json.dumps(identities), encoding="utf-8")
    return opened


def logger_names(setting: str) -> list[str]:
    """Return the trackers that `--logger` names.

    Raises:
        UsageError: one is not known.
    """
    names = [name for name in setting.split(",") if name and name != "off"]
    for name in names:
        if name not in TRACKERS:
            known = ", ".join(TRACKERS)
            raise UsageError(f"there is no logger {name}", f"--logger takes one or more of {known}, with commas")
    return names


def read_secrets(path: Path) -> None:
    """Take the trackers' keys from a file of NAME=value lines into this process.

    Raises:
        UsageError: the file cannot be read, others can read it, or it names something else than a tracker's key.
    """
    try:
        mode = path.stat().st_mode
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        reason = (getattr(exc, "strerror", None) or "not text").lower()
        raise UsageError(f"cannot read the secrets in {path}: {reason}", "--logger-secrets takes a file") from exc
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"others can read the secrets in {path}", f"chmod 600 {path}")
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        # The value is never repeated: an error goes to logs.
        if not equals or name.strip() not in SECRET_VARIABLES:
            known = ", ".join(SECRET_VARIABLES[:3])
            raise UsageError(f"line {number} of {path} names no tracker's key", f"write NAME=value, such as {known}")
        os.environ[name.strip()] = value.strip().strip("\"'")


def scalars_of(record: Record) -> dict[str, float]:
    """Return a record's numbers as `train/…` or `val/…`."""
    numbers = {"loss": record.loss, **record.metrics}
    if record.kind == "train":
        words = ("learning_rate", "samples_per_second", "step_seconds", "data_wait_seconds", "memory_bytes", "mfu")
        numbers |= {word: getattr(record, word) for word in words if getattr(record, word) is not None}
        numbers["epoch"] = record.epoch
    return {f"{record.kind}/{name}": float(value) for name, value in numbers.items()}


def shown_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings as a tracker may show them: what sounds like a secret is hidden."""
    return {
        name: "(hidden)" if any(word in name for word in SECRET_WORDS) else value for name, value in settings.items()
    }


def first_line(exc: BaseException) -> str:
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return f"{type(exc).__name__}: {lines[0][:200]}" if lines else type(exc).__name__


def _import(module: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as exc:
        raise UsageError(f"{module} is not installed", f"pip install 'devgw-runner[{extra}]'") from exc
