"""Building an environment image: which profile, which tag, built only when no image has that tag yet.

The engine is reached through `ImageBuilder`; `engines/docker/image_build.py` is one.
"""

import json
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.engines.image_builder import ImageBuilder, Progress
from gateway.engines.interface import IMAGE_LABEL_PREFIX
from gateway.errors import ConfigError
from gateway.images.context import ContextFile, collect_context, digest_context, tar_of_text, write_tar
from gateway.images.references import REPOSITORY

CONTENTS_PATH = "/opt/devgw/share/devgw/contents.json"
LABEL = IMAGE_LABEL_PREFIX
PACKAGE = Path(__file__).resolve().parents[1]
SOURCES = (PACKAGE / "containers", PACKAGE.parent / "containers")
"""Where the image's sources are: inside an installed package, or beside it in a checkout."""


@dataclass(frozen=True)
class Profile:
    """One of `containers/image/profiles/*.toml`: what an image is made of unless the request says otherwise."""

    name: str
    python: str
    base: str
    torch: str
    torch_index: str = ""
    torch_companions: tuple[str, ...] = ()
    lock: str = ""
    """Whose lock file it takes its packages from; empty for its own."""
    torch_lock: str = ""
    """Whose lock of torch; empty for its own, if it has one."""
    machine: str = ""
    """What `uname -m` must say where it is built; empty where that is all the same."""


@dataclass(frozen=True)
class ImageRequest:
    """What the administrator asks for; None and empty mean the profile's value."""

    profile: str = "cpu"
    base: str | None = None
    torch: str | None = None
    extra_packages: tuple[str, ...] = ()
    wheelhouse: Path | None = None
    index_url: str | None = None
    ca_bundle: Path | None = None
    keep_ca_bundle: bool = False
    rebuild: bool = False


@dataclass(frozen=True)
class BuildPlan:
    """A request worked out: the files, the arguments and the tag they lead to."""

    tag: str
    digest: str
    profile: Profile
    files: list[ContextFile] = field(repr=False)
    arguments: dict[str, str]
    labels: dict[str, str]

    @property
    def alias(self) -> str:
        """The name under which the newest image of a profile is found, as in the setting `image`."""
        return f"{REPOSITORY}:{self.profile.name}"


@dataclass(frozen=True)
class BuiltImage:
    """An image that is on the engine, and whether it had to be built."""

    tag: str
    labels: dict[str, str]
    is_new: bool


def find_image_folder(places: Sequence[Path] = SOURCES) -> Path:
    """The folder with the Dockerfile.

    Raises:
        ConfigError: it is not there, as with a gateway that was copied by hand.
    """
    for place in places:
        if (place / "image" / "Dockerfile").is_file():
            return place / "image"
    raise ConfigError(
        "image.sources-missing", f"no image sources in {places[0]}", "install devgw with pip: its wheel carries them"
    )


def list_profiles(image_folder: Path) -> list[str]:
    """Names of the profiles, sorted."""
    return sorted(path.stem for path in (image_folder / "profiles").glob("*.toml"))


def load_profile(image_folder: Path, name: str) -> Profile:
    """Read a profile.

    Raises:
        ConfigError: no profile has this name, or its file does not hold what a profile needs.
    """
    known = list_profiles(image_folder)
    if name not in known:
        raise ConfigError("image.profile-unknown", f"no image profile {name!r}", f"profiles: {', '.join(known)}")
    try:
        values = tomllib.loads((image_folder / "profiles" / f"{name}.toml").read_text(encoding="utf-8"))
        values["torch_companions"] = tuple(values.get("torch_companions", ()))
        return Profile(name=name, **values)
    except (tomllib.TOMLDecodeError, TypeError) as exc:
        raise ConfigError("image.profile-invalid", f"image profile {name!r}: {exc}") from exc


def plan_build(request: ImageRequest, image_folder: Path, runner_folder: Path | None = None) -> BuildPlan:
    """Work a request out into files, arguments and a tag.

    Raises:
        ConfigError: the profile, the wheelhouse or the CA bundle is not there.
    """
    profile = load_profile(image_folder, request.profile)
    check_inputs(request)
    deciding = {
        "BASE": request.base or profile.base,
        "PROFILE": profile.name,
        "LOCK": profile.lock,
        "TORCH_LOCK": profile.torch_lock,
        "MACHINE": profile.machine,
        "TORCH": request.torch or profile.torch,
        "TORCH_INDEX": profile.torch_index,
        "TORCH_COMPANIONS": " ".join(profile.torch_companions),
        "EXTRA_PACKAGES": " ".join(request.extra_packages),
        "KEEP_CA_BUNDLE": "1" if request.keep_ca_bundle else "",
    }
    files = collect_context(
        image_folder,
        runner_folder=runner_folder,
        wheelhouse=request.wheelhouse,
        ca_bundle=request.ca_bundle,
        keep_ca_bundle=request.keep_ca_bundle,
    )
    digest = digest_context(files, deciding)
    return BuildPlan(
        tag=f"{REPOSITORY}:{profile.name}-{digest[:12]}",
        digest=digest,
        profile=profile,
        files=files,
        # The index is where the same files come from, and may hold credentials: it does not decide and is not labelled.
        arguments={**deciding, "INDEX_URL": request.index_url or ""},
        labels={f"{LABEL}profile": profile.name, f"{LABEL}base": deciding["BASE"], f"{LABEL}digest": digest},
    )


def check_inputs(request: ImageRequest) -> None:
    """Refuse a wheelhouse without wheels or a CA bundle without a certificate before anything is sent.

    Raises:
        ConfigError: as said.
    """
    if request.wheelhouse is not None and not any(request.wheelhouse.glob("*.whl")):
        hint = f"collect_wheelhouse.py --profile {request.profile} --into {request.wheelhouse}"
        raise ConfigError("image.wheelhouse-empty", f"no wheels in {request.wheelhouse}", hint)
    if request.ca_bundle is not None:
        try:
            text = request.ca_bundle.read_text(encoding="utf-8", errors="replace")
        except OSError as exc:
            raise ConfigError("image.ca-bundle-unreadable", f"cannot read {request.ca_bundle}: {exc.strerror}") from exc
        if "BEGIN CERTIFICATE" not in text:
            raise ConfigError(
                "image.ca-bundle-invalid", f"no certificate in {request.ca_bundle}", "a PEM file is expected"
            )


def build_image(
    request: ImageRequest, builder: ImageBuilder, plan: BuildPlan, progress: Progress, *, moves_alias: bool = True
) -> BuiltImage:
    """Build what the plan says, unless it is there already, and label it with what it really holds.

    With `moves_alias`, the profile's name leads to it from now on.

    Raises:
        EngineError: a step of the build failed; the message ends with the last lines of that step.
    """
    if not request.rebuild and builder.has_image(plan.tag):
        if moves_alias:
            builder.name_image(plan.tag, plan.alias)
        return BuiltImage(plan.tag, builder.read_labels(plan.tag), is_new=False)
    with tempfile.TemporaryFile(prefix="devgw-build-") as context:
        write_tar(plan.files, context)
        context.seek(0)
        image = builder.build(context, tag=None, arguments=plan.arguments, labels={}, progress=progress)
    labels = {**plan.labels, **label_contents(json.loads(builder.read_file(image, CONTENTS_PATH)))}
    builder.build(
        tar_of_text("Dockerfile", f"FROM {image}\n"), tag=plan.tag, arguments={}, labels=labels, progress=progress
    )
    if moves_alias:
        builder.name_image(plan.tag, plan.alias)
    return BuiltImage(plan.tag, labels, is_new=True)


def label_contents(contents: Mapping[str, Any]) -> dict[str, str]:
    """Labels out of the record that the build left in the image; what the image has not got gets no label."""
    wanted = ("distribution", "python", "torch", "cuda", "rocm", "cudnn")
    packages = contents.get("packages", {})
    labels = {name: contents.get(name) for name in wanted}
    labels |= {name: packages.get(name) for name in ("jupyterlab", "devgw-environment", "devgw-runner")}
    return {f"{LABEL}{name}": str(value) for name, value in labels.items() if value}
