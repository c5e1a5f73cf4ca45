"""Driver, torch build and device: do they fit each other?"""

from pathlib import Path
from typing import Any

from devgw_runner.metrics.gpu import NvmlUnavailableError, driver_version, read_gpus
from devgw_runner.metrics.state import GpuState
from devgw_runner.preflight.check import Check, failed, passed, warned

# The oldest driver for each CUDA major version (minor-version compatibility):
# docs.nvidia.com/cuda/cuda-toolkit-release-notes, "CUDA Toolkit and Minimum Required Driver".
OLDEST_DRIVER = {11: (450, 80), 12: (525, 60), 13: (580, 65)}
LITTLE_FREE_MEMORY = 0.5


def check_torch() -> Check:
    try:
        import torch
    except (ImportError, OSError) as exc:
        first_line = str(exc).splitlines()[0]
        return failed("torch", f"torch cannot be imported: {first_line}", "pip install 'torch>=2.8'")
    build = torch_build(torch.version.cuda, torch.version.hip)
    return passed("torch", f"torch {torch.__version__} ({build})")


def torch_build(cuda: str | None, hip: str | None) -> str:
    """Name what torch was built for; a ROCm build says `hip` and speaks through torch.cuda all the same."""
    if hip:
        return f"ROCm, HIP {hip}"
    return f"CUDA {cuda}" if cuda else "CPU only"


def check_driver() -> Check:
    """Compare the driver with the CUDA version that torch was built for."""
    if hip := _torch_hip():
        return judge_rocm(hip, kernel_driver=Path("/dev/kfd").exists())
    cuda = _torch_cuda()
    try:
        driver = driver_version()
    except NvmlUnavailableError:
        if cuda:
            return warned(
                "driver",
                f"no NVIDIA driver answers, so training runs on the CPU; torch is built for CUDA {cuda}",
                "ask for a GPU, or check that the container was started with one",
            )
        return passed("driver", "no NVIDIA driver, and torch needs none")
    if not cuda:
        return failed(
            "driver",
            f"driver {driver} is there, but torch is built for the CPU only",
            "install a CUDA build of torch",
        )
    return compare_driver(driver, cuda)


def judge_rocm(hip: str, *, kernel_driver: bool) -> Check:
    """Judge AMD's side: the kernel's driver shows as /dev/kfd, and a container must have been given it."""
    if kernel_driver:
        return passed("driver", f"AMD's kernel driver is there for HIP {hip}")
    return warned(
        "driver",
        f"no AMD driver answers (/dev/kfd), so training runs on the CPU; torch is built for HIP {hip}",
        "start the container with /dev/kfd and /dev/dri",
    )


def compare_driver(driver: str, cuda: str) -> Check:
    """Say whether `driver` ("535.86.05") runs programs built for `cuda` ("12.8")."""
    oldest = OLDEST_DRIVER.get(int(cuda.split(".", maxsplit=1)[0]))
    if oldest is None:
        return warned("driver", f"CUDA {cuda} is newer than this check", "compare the versions by hand")
    actual = tuple(int(part) for part in driver.split(".")[:2])
    if actual < oldest:
        wanted = f"{oldest[0]}.{oldest[1]}"
        return failed(
            "driver",
            f"driver {driver} is too old for torch's CUDA {cuda}, which needs {wanted}",
            f"update the host's driver to {wanted} or newer, or use an image with an older CUDA",
        )
    return passed("driver", f"driver {driver} runs CUDA {cuda}")


def check_device() -> Check:
    """Compare the device's capability with the architectures that torch carries code for."""
    torch = _torch()
    if torch is not None and torch.version.hip:
        if not torch.cuda.is_available():
            return warned("device", "torch finds no AMD device", "'rocminfo' shows what the container was given")
        own = torch.cuda.get_device_properties(0).gcnArchName
        return compare_amd_architecture(torch.cuda.get_device_name(), own, torch.cuda.get_arch_list())
    if torch is None or not torch.version.cuda:
        return passed("device", "no CUDA device is needed")
    if not torch.cuda.is_available():
        return warned("device", "torch finds no CUDA device", "'nvidia-smi -L' shows what the container was given")
    major, minor = torch.cuda.get_device_capability()
    return compare_architecture(torch.cuda.get_device_name(), (major, minor), torch.cuda.get_arch_list())


def compare_architecture(name: str, capability: tuple[int, int], built_for: list[str]) -> Check:
    """Say whether code in `built_for` ("sm_80", "compute_90") runs on a device of `capability`.

    Binary code runs on the same major version from its minor version on; PTX runs on anything newer.
    """
    for entry in built_for:
        kind, _, digits = entry.partition("_")
        number = "".join(character for character in digits if character.isdigit())
        built = (int(number[:-1]), int(number[-1]))
        if kind == "compute" and built <= capability:
            return passed("device", f"{name}: SM {capability[0]}.{capability[1]}, compiled from PTX at first use")
        if kind == "sm" and built[0] == capability[0] and built[1] <= capability[1]:
            return passed("device", f"{name}: SM {capability[0]}.{capability[1]} is in this torch")
    return failed(
        "device",
        f"{name} is SM {capability[0]}.{capability[1]}, this torch is built for {', '.join(built_for)}",
        "install a torch build for that architecture",
    )


def compare_amd_architecture(name: str, own: str, built_for: list[str]) -> Check:
    """Say whether code for `built_for` ("gfx90a", "gfx942") runs on a device of `own` ("gfx942:sramecc+:xnack-")."""
    architecture = own.partition(":")[0]
    if architecture in {built.partition(":")[0] for built in built_for}:
        return passed("device", f"{name}: {architecture} is in this torch")
    return failed(
        "device",
        f"{name} is {architecture}, this torch is built for {', '.join(built_for)}",
        "install a torch build for that architecture",
    )


def check_libraries() -> Check:
    torch = _torch()
    if torch is not None and torch.version.hip:
        return passed("libraries", "MIOpen and RCCL are part of torch's ROCm build")
    if torch is None or not torch.version.cuda:
        return passed("libraries", "cuDNN and NCCL are not needed")
    cudnn = torch.backends.cudnn.version()
    if cudnn is None:
        return failed("libraries", "cuDNN cannot be loaded", "reinstall torch together with its nvidia-cudnn package")
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else "absent"
    return passed("libraries", f"cuDNN {cudnn}, NCCL {nccl}")


def check_gpu_memory() -> Check:
    """Say who else uses the device's memory."""
    try:
        gpus = read_gpus()
    except NvmlUnavailableError:
        return passed("gpu-memory", "no NVIDIA device")
    if not gpus:
        return warned("gpu-memory", "the driver shows no device", "'nvidia-smi -L' shows what the container was given")
    return judge_memory(gpus[0])


def judge_memory(gpu: GpuState) -> Check:
    """Judge one device's free memory."""
    free = gpu.memory_total_bytes - gpu.memory_used_bytes
    size = f"{free / 2**30:.1f} of {gpu.memory_total_bytes / 2**30:.1f} GiB free on {gpu.name}"
    kind = " (a MIG slice)" if gpu.uuid.startswith("MIG-") else ""
    if free < gpu.memory_total_bytes * LITTLE_FREE_MEMORY:
        others = f", {gpu.processes} processes use it" if gpu.processes else ""
        return warned("gpu-memory", f"only {size}{kind}{others}", "end what else runs there: 'nvidia-smi' lists it")
    return passed("gpu-memory", size + kind)


def _torch() -> Any:
    try:
        import torch
    except (ImportError, OSError):
        return None
    return torch


def _torch_hip() -> str | None:
    torch = _torch()
    return torch.version.hip if torch else None


def _torch_cuda() -> str | None:
    torch = _torch()
    return torch.version.cuda if torch else None
