"""Judges the NVIDIA driver: is it there, is it one, and does it run the CUDA of the image?"""

from collections.abc import Iterator

from gateway.doctor.facts import DriverFacts, Wish
from gateway.doctor.finding import Finding, Unasked, failure, ok, unknown, warning
from gateway.doctor.requirement import Host, unmet_requirements
from gateway.doctor.versions import (
    OLDEST_DRIVERS,
    SILICON_BRANCHES,
    TOOLKIT_DRIVERS,
    is_older,
    parse_version,
    text_of,
)
from gateway.engines.diagnostics import ImageFacts
from gateway.gpus.sensors import Sensors

_ASK_DRIVER = "make 'nvidia-smi' work on the host first"
_ASK_IMAGE = "'devgw image build' makes the image, then ask again"


def judge_driver(facts: DriverFacts) -> Iterator[Finding]:
    """Judge whether the driver answers, kernel module against libraries, and driver against silicon."""
    yield judge_answer(facts)
    if facts.module:
        yield judge_module(facts)
    if not facts.sensors.error:
        yield judge_silicon(facts.sensors)


def judge_answer(facts: DriverFacts) -> Finding:
    """Say whether NVML answers; its own words tell a mismatch from an absence."""
    check, sensors = "driver.answers", facts.sensors
    if sensors.lost:
        return failure(check, f"the driver has lost {'; '.join(sensors.lost)}", "reboot the host, or reset that GPU")
    if not sensors.error:
        return ok(check, f"driver {sensors.driver} answers for {_count(sensors)}, CUDA up to {sensors.cuda}")
    if "mismatch" in sensors.error.lower():
        return failure(
            check, f"NVML: {sensors.error}", "reboot, or unload and load the nvidia modules: an update changed them"
        )
    if not facts.module:
        return failure(
            check,
            f"this host has {facts.pci_gpus} NVIDIA GPU(s) and no driver is loaded ({sensors.error})",
            "install NVIDIA's driver, R580 or newer, then 'modprobe nvidia'",
        )
    return failure(
        check,
        f"the kernel module {facts.module} is loaded and NVML does not answer: {sensors.error}",
        "install the libraries of the same driver: libnvidia-ml.so.1 must be found by 'ldconfig -p'",
    )


def judge_module(facts: DriverFacts) -> Finding:
    """Compare the loaded kernel module with the libraries on disk: an update without a reboot parts them."""
    check = "driver.module"
    if not facts.libraries:
        return unknown(
            check,
            f"kernel module {facts.module}; no versioned libcuda or libnvidia-ml is where they usually lie",
            "compare 'cat /proc/driver/nvidia/version' with 'nvidia-smi'",
        )
    if facts.module in facts.libraries:
        others = [version for version in facts.libraries if version != facts.module]
        if others:
            return warning(
                check,
                f"libraries of driver {', '.join(others)} lie beside those of {facts.module}",
                "remove the other driver's packages",
            )
        return ok(check, f"kernel module and libraries are both {facts.module}")
    return failure(
        check,
        f"the kernel module is {facts.module}, the libraries are {', '.join(facts.libraries)}",
        "reboot, so that the module of the installed driver is loaded",
    )


def judge_silicon(sensors: Sensors) -> Finding:
    """Hold the driver's branch against the newest GPU: new silicon sets its own floor."""
    check, driver = "driver.silicon", parse_version(sensors.driver)
    told = [device for device in sensors.devices if device.capability is not None]
    if driver is None or not told:
        return unknown(check, "the driver does not tell what its GPUs can do", _ASK_DRIVER)
    for device in told:
        major, minor = device.capability or (0, 0)
        floor = SILICON_BRANCHES.get(major)
        if floor is not None and is_older(driver, floor):
            return failure(
                check,
                f"{device.name} (SM {major}.{minor}) needs driver branch R{floor[0]}, this is {sensors.driver}",
                f"install driver branch R{floor[0]} or newer",
            )
    kinds = sorted({"SM {}.{}".format(*(device.capability or ())) for device in told})
    return ok(check, f"driver {sensors.driver} knows {', '.join(kinds)}")


def judge_image(driver: DriverFacts, image: ImageFacts | Unasked, wish: Wish) -> Iterator[Finding]:
    """Judge the image's CUDA and its own requirements against the driver."""
    if isinstance(image, Unasked):
        yield unknown("image.cuda", f"could not be asked: {image.why}", _ASK_IMAGE)
    elif driver.sensors.error:
        yield unknown("image.cuda", f"could not be asked: NVML: {driver.sensors.error}", _ASK_DRIVER)
    else:
        yield judge_cuda(driver.sensors.driver, image, wants_gpu=wish.wants_gpu)
        yield judge_requirement(driver.sensors, image)


def judge_cuda(driver: str, image: ImageFacts, *, wants_gpu: bool = True) -> Finding:
    """Compare the driver with the CUDA that the image's torch was built for (minor-version compatibility)."""
    check, text = "image.cuda", image.labels.get("cuda", "")
    if not text and not wants_gpu:
        return ok(check, f"{image.reference} is built for the CPU, and no GPU is asked for")
    if not text:
        return warning(
            check,
            f"{image.reference} is built for the CPU: environments with a GPU cannot use it",
            "'devgw image build --profile cuda', and set environments.image",
        )
    cuda, have = parse_version(text), parse_version(driver)
    oldest = OLDEST_DRIVERS.get(cuda[0]) if cuda else None
    if cuda is None or have is None or oldest is None:
        return unknown(
            check,
            f"CUDA {text} and driver {driver} are not in devgw's table",
            "compare them in NVIDIA's CUDA release notes",
        )
    if is_older(have, oldest):
        return failure(
            check,
            f"driver {driver} is too old for CUDA {text} in {image.reference}, which runs from {text_of(oldest)} on",
            f"install driver {text_of(oldest)} or newer, or build an image with an older CUDA",
        )
    own = TOOLKIT_DRIVERS.get(cuda[:2])
    if own is not None and is_older(have, own):
        return warning(
            check,
            f"driver {driver} runs CUDA {text} by minor-version compatibility; its own driver is {text_of(own)}, "
            "and code that is compiled from PTX fails below it",
            f"install driver {text_of(own)} or newer",
        )
    return ok(check, f"driver {driver} runs CUDA {text}")


def judge_requirement(sensors: Sensors, image: ImageFacts) -> Finding:
    """Hold the image's NVIDIA_REQUIRE_* against every GPU: under CDI nobody else does."""
    check = "image.requirement"
    named = sorted(name for name in image.variables if name.startswith("NVIDIA_REQUIRE_"))
    if not named:
        return ok(check, f"{image.reference} asks for no particular driver")
    for device in sensors.devices:
        arch = "" if device.capability is None else "{}.{}".format(*device.capability)
        host = Host(sensors.cuda, sensors.driver, device.brand, arch)
        try:
            unmet = unmet_requirements(image.variables, host)
        except ValueError as exc:
            return unknown(check, f"{image.reference}: {exc}", "read the image's NVIDIA_REQUIRE_CUDA by hand")
        if unmet:
            asked = image.variables[unmet[0]].split()[0]
            return failure(
                check,
                f"{image.reference} asks {asked} or another branch ({unmet[0]}); {device.name} has driver "
                f"{sensors.driver}, CUDA {sensors.cuda}, brand {device.brand}",
                "install a newer driver, or start from an image with an older CUDA",
            )
    return ok(check, f"every GPU satisfies {', '.join(named)} of {image.reference}")


def _count(sensors: Sensors) -> str:
    whole = sum(device.parent is None for device in sensors.devices)
    return f"{whole} GPU" if whole == 1 else f"{whole} GPUs"
