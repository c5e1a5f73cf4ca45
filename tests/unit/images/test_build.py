"""Which image a request leads to, and that the same request is not built twice."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from gateway.engines.image_builder import BuildProgress, Progress
from gateway.errors import ConfigError
from gateway.images.build import (
    ImageRequest,
    build_image,
    find_image_folder,
    list_profiles,
    load_profile,
    plan_build,
)
from gateway.images.context import collect_context, write_tar

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nnot really\n-----END CERTIFICATE-----\n"


class FakeBuilder:
    """An engine that builds nothing, but remembers what it was asked."""

    def __init__(self) -> None:
        self.images: dict[str, dict[str, str]] = {}
        self.contexts: list[dict[str, bytes]] = []
        self.arguments: list[dict[str, str]] = []

    def has_image(self, tag: str) -> bool:
        return tag in self.images

    def build(
        self,
        context: IO[bytes],
        *,
        tag: str | None,
        arguments: Mapping[str, str],
        labels: Mapping[str, str],
        progress: Progress,
    ) -> str:
        with tarfile.open(fileobj=context) as tar:
            self.contexts.append({member.name: tar.extractfile(member).read() for member in tar})
        self.arguments.append(dict(arguments))
        if tag:
            self.images[tag] = dict(labels)
        progress(BuildProgress(1, 2, "Step 1/2 : FROM"))
        return "sha256:made"

    def name_image(self, image: str, tag: str) -> None:
        self.images[tag] = self.images[image]

    def read_file(self, image: str, path: str) -> bytes:
        return json.dumps(
            {"python": "3.11.2", "torch": "2.13.0+cpu", "cuda": None, "packages": {"jupyterlab": "4"}}
        ).encode()

    def read_labels(self, image: str) -> dict[str, str]:
        return self.images[image]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image folder with one file of each kind."""
    image = tmp_path / "image"
    contents = {
        "Dockerfile": "FROM scratch\n",
        "build/install_system.sh": "true\n",
        "trust/README": "",
        "wheelhouse/README": "",
        "runner/README": "",
        "rootfs/etc/profile.d/devgw.sh": "",
        "environment/pyproject.toml": "",
        "environment/__pycache__/x.pyc": "",
        "profiles/tiny.toml": 'python = "3.11"\nbase = "debian:12"\ntorch = "2.13.0"\n',
    }
    for name, content in contents.items():
        (image / name).parent.mkdir(parents=True, exist_ok=True)
        (image / name).write_text(content)
    return image


def tag_of(folder: Path, **changes: object) -> str:
    """The tag of a request for the tiny profile."""
    return plan_build(replace(ImageRequest(profile="tiny"), **changes), folder).tag


def test_tag_names_the_profile_and_twelve_digits(folder: Path) -> None:
    """The tag is `devgw/env:<profile>-<12 hex>`, and the same request gives the same."""
    assert tag_of(folder) == tag_of(folder)
    name, _, digest = tag_of(folder).rpartition("-")
    assert name == "devgw/env:tiny"
    assert len(digest) == 12
    assert int(digest, 16) >= 0


@pytest.mark.parametrize(
    "changes",
    [{"base": "ubuntu:24.04"}, {"torch": "2.8.0"}, {"extra_packages": ("einops",)}],
)
def test_tag_changes_with_what_decides_the_image(folder: Path, changes: dict[str, object]) -> None:
    """Another base, torch or package is another image."""
    assert tag_of(folder, **changes) != tag_of(folder)


def test_tag_changes_with_a_files_content_name_and_permission(folder: Path) -> None:
    """So is another file of the context; a cache beside it is not."""
    tags = [tag_of(folder)]
    script = folder / "build" / "install_system.sh"
    script.write_text("false\n")
    tags.append(tag_of(folder))
    script.chmod(0o755)
    tags.append(tag_of(folder))
    script.rename(script.with_name("other.sh"))
    tags.append(tag_of(folder))
    assert len(set(tags)) == 4
    (folder / "environment" / "__pycache__" / "y.pyc").write_text("y")
    assert tag_of(folder) == tags[-1]


def test_ca_bundle_decides_only_when_it_stays(folder: Path, tmp_path: Path) -> None:
    """A CA used while building leaves the same image; one that stays is part of it. The index never matters."""
    bundle = tmp_path / "ca.pem"
    bundle.write_text(CERTIFICATE)
    assert tag_of(folder, ca_bundle=bundle, index_url="https://user:secret@index/simple") == tag_of(folder)
    assert tag_of(folder, ca_bundle=bundle, keep_ca_bundle=True) != tag_of(folder)


def test_second_build_finds_the_first(folder: Path) -> None:
    """What is there is not built again, unless a rebuild is asked for; the profile's name leads to the newest."""
    builder, lines = FakeBuilder(), []
    request = ImageRequest(profile="tiny", index_url="https://user:secret@index/simple")
    plan = plan_build(request, folder)
    first = build_image(request, builder, plan, lines.append)
    assert (first.is_new, first.tag) == (True, plan.tag)
    assert lines[0].percent == 0
    assert not build_image(request, builder, plan, lines.append).is_new
    assert len(builder.contexts) == 2
    assert build_image(replace(request, rebuild=True), builder, plan, lines.append).is_new
    assert builder.images["devgw/env:tiny"] == builder.images[plan.tag]


def test_labels_are_what_the_image_recorded(folder: Path) -> None:
    """Versions come from inside; what is not there has no label, and the index with its password is in none."""
    builder = FakeBuilder()
    request = ImageRequest(profile="tiny", index_url="https://user:secret@index/simple")
    plan = plan_build(request, folder)
    labels = build_image(request, builder, plan, lambda _line: None).labels
    assert labels["org.devgw.torch"] == "2.13.0+cpu"
    assert labels["org.devgw.jupyterlab"] == "4"
    assert "org.devgw.cuda" not in labels
    assert "secret" not in json.dumps(labels)
    assert builder.contexts[1] == {"Dockerfile": b"FROM sha256:made\n"}


def test_context_carries_wheels_runner_and_bundle(folder: Path, tmp_path: Path) -> None:
    """What the administrator adds lies where the Dockerfile looks for it."""
    for name in (
        "wheels/a-1-py3-none-any.whl",
        "wheels/notes.txt",
        "runner/pyproject.toml",
        "runner/tests/test_x.py",
        "ca.pem",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("x")
    files = collect_context(
        folder, runner_folder=tmp_path / "runner", wheelhouse=tmp_path / "wheels", ca_bundle=tmp_path / "ca.pem"
    )
    target = io.BytesIO()
    write_tar(files, target)
    target.seek(0)
    with tarfile.open(fileobj=target) as tar:
        names = tar.getnames()
    assert {"wheelhouse/a-1-py3-none-any.whl", "runner/pyproject.toml", "trust/ca-bundle.pem"} <= set(names)
    assert not {"wheelhouse/notes.txt", "runner/tests/test_x.py", "environment/__pycache__/x.pyc"} & set(names)
    assert len(names) == len(set(names))


def test_tar_is_the_same_bytes_whenever_it_is_written(folder: Path) -> None:
    """Times and owners do not enter it, so the builder's cache holds."""
    tars = []
    for _ in range(2):
        target = io.BytesIO()
        write_tar(collect_context(folder), target)
        tars.append(target.getvalue())
        (folder / "Dockerfile").touch()
    assert tars[0] == tars[1]


def test_unusable_inputs_are_refused_before_anything_is_sent(folder: Path, tmp_path: Path) -> None:
    """An unknown profile, an empty wheelhouse, a bundle without a certificate: each is named, with a way on."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pem").write_text("hello")
    cases = [
        (ImageRequest(profile="huge"), "image.profile-unknown"),
        (ImageRequest(profile="tiny", wheelhouse=tmp_path / "empty"), "image.wheelhouse-empty"),
        (ImageRequest(profile="tiny", ca_bundle=tmp_path / "none.pem"), "image.ca-bundle-unreadable"),
        (ImageRequest(profile="tiny", ca_bundle=tmp_path / "text.pem"), "image.ca-bundle-invalid"),
    ]
    for request, code in cases:
        with pytest.raises(ConfigError) as caught:
            plan_build(request, folder)
        assert caught.value.code == code
    with pytest.raises(ConfigError, match="no image sources"):
        find_image_folder([tmp_path / "empty"])


PROFILES = ["cpu", "cuda", "cuda13", "edge", "rocm", "serve"]


@pytest.mark.parametrize("name", PROFILES)
def test_shipped_profiles_load_and_have_their_lock_files(name: str) -> None:
    """Each profile of this tree names its parts, and its packages are pinned with hashes."""
    folder = find_image_folder()
    assert list_profiles(folder) == PROFILES
    profile = load_profile(folder, name)
    lock = (folder / "profiles" / f"{profile.lock or name}.lock").read_text()
    assert lock.count("==") <= lock.count("--hash=sha256:")
    assert "\ntorch==" not in lock
    assert profile.base
    torch_lock = folder / "profiles" / f"{profile.torch_lock or name}.torch.lock"
    assert torch_lock.exists() == (name in {"cuda", "cuda13", "edge"})
    if torch_lock.exists():
        assert f"\ntorch=={profile.torch} " in torch_lock.read_text()
        pins = dict(line.split("==") for line in lock.splitlines() if "==" in line)
        of_torch = dict(line.split("==") for line in torch_lock.read_text().splitlines() if "==" in line)
        assert [one for one in pins.keys() & of_torch.keys() if pins[one] != of_torch[one]] == []


@pytest.mark.parametrize("name", PROFILES)
def test_a_shipped_profiles_context_is_whole(name: str) -> None:
    """What is sent to an engine has the locks that the build will ask for, and its labels say what it is made from."""
    folder = find_image_folder()
    request = ImageRequest(profile=name)
    plan = plan_build(request, folder, folder.parent / "runner")
    builder = FakeBuilder()
    built = build_image(request, builder, plan, lambda _: None)
    context, arguments = builder.contexts[0], builder.arguments[0]
    named = {
        line.split()[1].partition("=")[0] for line in context["Dockerfile"].decode().splitlines() if line[:4] == "ARG "
    }
    assert set(arguments) <= named
    assert f"profiles/{arguments['LOCK'] or name}.lock" in context
    assert (f"profiles/{arguments['TORCH_LOCK'] or name}.torch.lock" in context) == (name in {"cuda", "cuda13", "edge"})
    assert plan.tag.startswith(f"devgw/env:{name}-")
    assert built.labels["org.devgw.profile"] == name
    assert built.labels["org.devgw.base"] == load_profile(folder, name).base == arguments["BASE"]


@pytest.mark.parametrize(
    ("name", "base", "torch", "machine"),
    [
        ("cuda13", "nvidia/cuda:13.0", "2.14.1", ""),
        ("edge", "nvidia/cuda:13.0", "2.14.1", "aarch64"),
        ("rocm", "ubuntu:24.04", "2.14.1", ""),
        ("serve", "debian:12", "2.13.0", ""),
    ],
)
def test_profiles_beside_the_first_two_name_their_parts(name: str, base: str, torch: str, machine: str) -> None:
    """Base, torch and machine; the locks of what is for arm64 have wheels for it."""
    folder = find_image_folder()
    profile = load_profile(folder, name)
    assert profile.base.startswith(base)
    assert (profile.torch, profile.machine) == (torch, machine)
    serve = (folder / "profiles" / "serve.lock").read_text()
    assert all(f"\n{package}==" in serve for package in ("onnx", "onnxruntime", "onnxscript"))


def test_a_profile_of_another_machine_is_refused_in_one_line(tmp_path: Path) -> None:
    """Before anything is installed: a base of another architecture would end in an error of exec(2)."""
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "edge.lock").touch()
    script = (find_image_folder() / "build" / "install_packages.sh").read_text()
    script = script.replace("/build/", f"{tmp_path}/")
    done = subprocess.run(
        ["sh", "-c", script], env={"PROFILE": "edge", "MACHINE": "pdp11", "PATH": os.environ["PATH"]},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("the profile 'edge' is for pdp11 and this builder is ")
    assert done.stderr.count("\n") == 1
