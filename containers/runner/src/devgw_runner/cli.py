"""`devgw-run`: a script to train, a script to wrap, or a subcommand. The command's one entry point.

Torch is imported only by what needs it, so that `doctor` works where torch does not.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from devgw_runner.errors import RunnerError, UsageError

USAGE = """usage: devgw-run [--nproc N] [--detach] train.py [--batch-size 64 ...]
       devgw-run [--nproc N] [--detach] [--tf32] --wrap -- python train.py ...
       devgw-run COMMAND ...

train.py calls devgw_runner.run(YourTask); 'devgw-run train.py --help' lists its flags.

options:
  --nproc N      processes to start (default: one per visible GPU; 1 without, and with --wrap)
  --nodes N      nodes of the run, or FEWEST:MOST; start the same line on each (default: 1)
  --rendezvous H the HOST:PORT where several nodes meet, on one of them; --run-id NAME tells runs apart
  --restarts N   times that all processes start again from the newest checkpoint after one failed (default: 0)
  --detach       keep running after the connection is lost; prints a job id
  --wrap -- ...  run an unmodified script: checks, caches, threads, signals, logs, GPU metrics
  --tf32         with --wrap: let cuBLAS use TF32
  --version      print the version

commands:
  doctor         check driver, torch, device, limits and volumes
  jobs           list detached jobs and live runs
  logs           print a job's output, -f until it ends
  stop           save a checkpoint and end a job
  checkpoint     ask every live run for a checkpoint now
  checkpoints    list and verify a directory of checkpoints
  find-lr        find a learning rate by a range test
  sweep          run a task with many settings and name the best
  evaluate       compute loss and metrics of a checkpoint
  predict        write a checkpoint's outputs to a file
  export         write weights as safetensors, or the model as torch.export, ONNX or for Triton
  feature-maps   draw a convolutional network's layers for one image"""

CLUSTER_OPTIONS = {"--nodes": "2", "--rendezvous": "node0:29400", "--run-id": "flowers", "--restarts": "3"}

COMMANDS: dict[str, tuple[str, str]] = {
    "doctor": ("devgw_runner.commands.doctor", "run"),
    "jobs": ("devgw_runner.commands.jobs", "list_all"),
    "logs": ("devgw_runner.commands.jobs", "show_logs"),
    "stop": ("devgw_runner.commands.jobs", "stop"),
    "checkpoint": ("devgw_runner.commands.jobs", "checkpoint_now"),
    "checkpoints": ("devgw_runner.commands.checkpoints", "list_checkpoints"),
    "find-lr": ("devgw_runner.commands.find_lr", "run"),
    "sweep": ("devgw_runner.commands.sweep", "run"),
    "evaluate": ("devgw_runner.commands.inference", "evaluate"),
    "predict": ("devgw_runner.commands.inference", "predict"),
    "export": ("devgw_runner.commands.checkpoints", "export"),
    "feature-maps": ("devgw_runner.commands.feature_maps", "run"),
}


@dataclass
class LaunchOptions:
    """What stands on the line besides the script and its own flags."""

    processes: int | None = None
    nodes: str = "1"
    rendezvous: str = ""
    run_id: str = "devgw"
    restarts: int = 0
    detach: bool = False
    wrap: bool = False
    tf32: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run devgw-run and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(given)
    except RunnerError as exc:
        print(f"devgw-run: error: {exc.message}", file=sys.stderr)
        print(f"devgw-run: hint: {exc.hint}", file=sys.stderr)
        return exc.exit_code


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in {"-h", "--help"}:
        print(USAGE)
        return 0 if given else UsageError.exit_code
    if given[0] == "--version":
        from devgw_runner import __version__

        print(f"devgw-run {__version__}")
        return 0
    if given[0] in COMMANDS:
        module, function = COMMANDS[given[0]]
        command: Callable[[Sequence[str]], int] = getattr(import_module(module), function)
        return command(given[1:])
    options, rest = split_launch_options(given)
    if options.detach:
        return _detach(options, given, rest)
    return _wrap(options, rest) if options.wrap else _train(options, rest)


def split_launch_options(given: Sequence[str]) -> tuple[LaunchOptions, list[str]]:
    """Take devgw-run's own options out of the line, wherever they stand before a `--`.

    Raises:
        UsageError: --nproc has no sensible number.
    """
    options = LaunchOptions()
    rest: list[str] = []
    line = iter(given)
    for word in line:
        if word == "--":
            rest.extend(line)
        elif word == "--nproc" or word.startswith("--nproc="):
            options.processes = _count(word.partition("=")[2] or next(line, ""))
        elif word.partition("=")[0] in CLUSTER_OPTIONS:
            name, _, value = word.partition("=")
            _set_cluster_option(options, name, value or next(line, ""))
        elif word in {"--detach", "--wrap", "--tf32"}:
            setattr(options, word[2:], True)
        else:
            rest.append(word)
    if not rest:
        raise UsageError("there is no script to run", "devgw-run train.py --batch-size 64")
    return options, rest


def _set_cluster_option(options: LaunchOptions, name: str, value: str) -> None:
    if not value or value.startswith("-"):
        raise UsageError(f"{name} has no value", f"for example {name} {CLUSTER_OPTIONS[name]}")
    if name == "--restarts":
        if not value.isdigit():
            raise UsageError(f"--restarts {value} makes no sense", "for example --restarts 3")
        options.restarts = int(value)
    else:
        setattr(options, name.removeprefix("--").replace("-", "_"), value)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--nproc {text or 'without a number'} makes no sense", "for example --nproc 2")
    return int(text)


def _train(options: LaunchOptions, rest: list[str]) -> int:
    target, arguments = rest[0], rest[1:]
    if target.startswith("-"):
        raise UsageError(f"unknown flag {target} before the script", "devgw-run train.py --batch-size 64")
    if ":" not in target and not Path(target).is_file():
        close = f"'devgw-run --help' lists the {len(COMMANDS)} commands"
        raise UsageError(f"there is no script or command {target}", close)
    from devgw_runner.launching import train_target
    from devgw_runner.parallel.cluster import Cluster, check_cluster

    cluster = check_cluster(Cluster(options.nodes, options.rendezvous, options.run_id, options.restarts))
    return train_target(target, arguments, options.processes, cluster)


def _wrap(options: LaunchOptions, command: list[str]) -> int:
    if options.nodes != "1" or options.rendezvous or options.restarts:
        why = "--nodes, --rendezvous and --restarts are for a Task: a script under --wrap has no checkpoints of ours"
        raise UsageError(why, "let the script be started by torchrun: devgw-run --wrap -- torchrun ...")
    from devgw_runner.wrap.script import run_wrapped

    return run_wrapped(command, processes=options.processes, tf32=options.tf32)


def _detach(options: LaunchOptions, given: list[str], rest: list[str]) -> int:
    from devgw_runner.jobs.detached import start_detached
    from devgw_runner.paths import logs_root

    if not options.wrap and ":" not in rest[0] and not Path(rest[0]).is_file():
        raise UsageError(f"there is no script {rest[0]}", "devgw-run --detach train.py")
    script = next((word for word in rest if word.endswith(".py")), rest[0])
    name = "".join(letter if letter.isalnum() else "-" for letter in Path(script).stem)
    own_words = [word for word in _before_dashes(given) if word != "--detach"]
    command = [sys.executable, "-m", "devgw_runner", *own_words, *given[len(_before_dashes(given)) :]]
    job = start_detached(name, command, logs_root().absolute())
    print(job.id)
    print(f"devgw-run: runs detached; 'devgw-run logs -f {job.id}' follows it", file=sys.stderr)
    return 0


def _before_dashes(given: list[str]) -> list[str]:
    return given[: given.index("--")] if "--" in given else given


if __name__ == "__main__":
    raise SystemExit(main())
