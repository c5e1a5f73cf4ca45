"""What a user may choose about a run: one frozen model, from which the command line is generated.

Where the values come from (flags, environment, file) is left to `config_sources`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
AutoCount = Literal["auto"] | Count
DEFAULT_TIMEOUT_SECONDS = 1800.0
AutoWorkers = Literal["auto"] | Annotated[int, Field(ge=0)]


class TrainConfig(BaseModel):
    """The settings of one run. Subclass it to add settings of your own; they become flags too."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    run_name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="name of the run and of its directories; the script's name by default",
    )
    epochs: Count = Field(default=1, description="passes over the training data; --steps overrides it")
    steps: Count | None = Field(default=None, description="optimizer steps in all")
    batch_size: AutoCount = Field(
        default="auto", description="samples per optimizer step and process; auto fills the device's memory"
    )
    micro_batch: AutoCount = Field(
        default="auto",
        description="samples per forward pass; smaller than --batch-size accumulates gradients",
    )
    learning_rate: float = Field(
        default=1e-3, gt=0, allow_inf_nan=False, description="learning rate of the default optimizer"
    )
    weight_decay: float = Field(
        default=0.01, ge=0, allow_inf_nan=False, description="weight decay of the default optimizer"
    )
    grad_clip: float = Field(default=0.0, ge=0, description="largest gradient norm; 0 leaves it alone")

    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16", "fp8"] = Field(
        default="auto", description="arithmetic of the forward and backward pass"
    )
    compile: Literal["auto", "off", "default", "max"] = Field(
        default="auto", description="torch.compile; max also autotunes, which can take many minutes"
    )
    compile_timeout_seconds: float = Field(
        default=900.0, gt=0, description="seconds one rung of the ladder may take before the next is tried"
    )
    graphs: Literal["auto", "off", "on"] = Field(
        default="auto", description="whole-step CUDA graph; auto captures where the host is the bottleneck"
    )
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field(
        default="auto", description="layout of 4-D tensors; auto takes channels_last for convolutional nets"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where to train")
    parallel: Literal["auto", "single", "ddp", "fsdp"] = Field(
        default="auto", description="how several processes share the work"
    )
    tensor_parallel: Count = Field(
        default=1, description="processes that share each layer of Task.tensor_plan; the others divide the data"
    )
    group_timeout_seconds: float = Field(
        default=DEFAULT_TIMEOUT_SECONDS,
        gt=0,
        allow_inf_nan=False,
        description="seconds that several processes wait for each other before the run ends",
    )
    find_unused_parameters: bool = Field(
        default=False, description="DDP: some parameters take no part in some steps; costs a walk through the graph"
    )
    activation_checkpointing: Literal["off", "blocks"] = Field(
        default="off", description="compute the blocks' activations again instead of keeping them; the bits stay"
    )
    cpu_offload: bool = Field(default=False, description="keep FSDP's parameters in host memory")
    deterministic: bool = Field(default=False, description="the same bits every time, at some speed")
    seed: int = Field(default=0, ge=0, description="seed of initialisation, order and augmentation")

    workers: AutoWorkers = Field(default="auto", description="loader processes; 0 loads in the main process")
    last_batch: Literal["drop", "pad", "eager"] = Field(
        default="drop",
        description="an incomplete last training batch: left out, filled up, or run uncompiled",
    )
    eval_every: int = Field(default=0, ge=0, description="steps between evaluations; 0 means after each epoch")
    monitor: str = Field(default="loss", min_length=1, description="evaluation metric that decides what is best")
    monitor_mode: Literal["auto", "min", "max"] = Field(
        default="auto", description="whether smaller or larger is better; auto goes by the metric's name"
    )
    early_stop: int = Field(
        default=0, ge=0, description="evaluations without progress after which the run ends; 0 is never"
    )
    early_stop_delta: float = Field(default=0.0, ge=0, description="smallest change that counts as progress")
    nan: Literal["stop", "skip", "ignore"] = Field(
        default="stop",
        description="what a loss or gradient that is not finite does; skip costs a synchronisation per step",
    )
    oom: Literal["halve", "stop"] = Field(
        default="halve", description="out of device memory: halve the micro-batch and repeat, or stop"
    )

    data_dir: Path | None = Field(default=None, description="read-only data; /data in an environment")
    checkpoint_dir: Path | None = Field(
        default=None, description="root of the checkpoints; /checkpoints in an environment"
    )
    checkpoint_every: int = Field(default=0, ge=0, description="steps between checkpoints; 0 leaves it to minutes")
    checkpoint_minutes: float = Field(default=10.0, ge=0, description="minutes between checkpoints; 0 is never")
    checkpoint_keep: Count = Field(default=3, description="newest checkpoints kept")
    checkpoint_best: int = Field(
        default=0,
        ge=0,
        description="best checkpoints by --monitor kept beside the newest; each is saved when it occurs",
    )
    checkpoint_async: bool = Field(default=True, description="write checkpoints behind the training's back")
    resume: str = Field(
        default="auto",
        description="auto (newest usable of the branch); off or the path of a checkpoint begins a new branch",
    )

    log_dir: Path | None = Field(default=None, description="root of the logs; /logs in an environment")
    cache_dir: Path | None = Field(default=None, description="compile caches kept between runs")
    log_every: Count = Field(default=10, description="steps between records; each costs one synchronisation")
    progress_seconds: float = Field(
        default=10.0, gt=0, description="seconds between progress lines where there is no terminal"
    )
    csv: bool = Field(default=True, description="write metrics.csv beside metrics.jsonl")
    tensorboard: bool = Field(default=False, description="write TensorBoard events")
    logger: str = Field(default="off", description="experiment trackers, with commas: wandb, mlflow, aim")
    logger_project: str = Field(default="devgw", min_length=1, description="project or experiment in the trackers")
    logger_uri: str | None = Field(default=None, description="MLflow's server or Aim's repository; the logs by default")
    logger_secrets: Path | None = Field(
        default=None, description="file of NAME=value lines with the trackers' keys, readable by its owner alone"
    )
    prometheus: str = Field(
        default="textfile",
        pattern=r"^(off|textfile|[1-9][0-9]{0,4})$",
        description="off, textfile (metrics.prom in the logs), or a port on 127.0.0.1",
    )
    peak_tflops: float | None = Field(
        default=None,
        gt=0,
        description="peak of the device in TFLOP/s for MFU, if the runner does not know it",
    )
    profile: Annotated[int, Field(ge=0)] = Field(
        default=0, description="steps to trace with torch.profiler after warm-up; 0 is none"
    )
    explain: bool = Field(default=False, description="print every choice with its reason and exit")

    @model_validator(mode="after")
    def _micro_batch_fits(self) -> "TrainConfig":
        sizes = (self.batch_size, self.micro_batch)
        if all(isinstance(size, int) for size in sizes) and self.micro_batch > self.batch_size:  # type: ignore[operator]  # both are int here
            raise ValueError("--micro-batch is larger than --batch-size")
        return self
