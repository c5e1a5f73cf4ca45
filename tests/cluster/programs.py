"""The cluster's programs: Debian's packages, and Kubernetes built once from Debian's source package into the cache."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

_PACKAGES = {
    "/usr/lib/go-1.19/bin/go": "golang-1.19-go",
    "/usr/bin/etcd": "etcd-server",
    "/usr/bin/containerd": "containerd",
    "/usr/sbin/runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/bin/kubectl": "kubernetes-client",
    "/bin/busybox": "busybox-static",
}
_BUILT = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet")
_MARKED = {
    "KUBE_GIT_COMMIT": "0",
    "KUBE_GIT_TREE_STATE": "clean",
    "KUBE_GIT_VERSION": "v1.20.2",
    "KUBE_GIT_MAJOR": "1",
    "KUBE_GIT_MINOR": "20",
}
_IMPORT_PATH = "src/gopath/src/k8s.io/kubernetes"


def cache() -> Path:
    return Path(os.environ.get("DEVGW_CACHE") or Path.home() / ".cache/devgw") / "kubernetes"


def say(line: str) -> None:
    print(f"cluster: {line}", file=sys.stderr, flush=True)


def program(name: str) -> str:
    """Return the path of one that was built."""
    return str(cache() / "bin" / name)


def plugin_python() -> str:
    return str(cache() / "venv/bin/python")


def make_ready() -> None:
    """Install and build what is missing: minutes the first time, nothing later. Needs root, apt and pip."""
    missing = [package for path, package in _PACKAGES.items() if not Path(path).exists()]
    if missing:
        say(f"installing {' '.join(missing)}")
        _install(missing)
    if not all(Path(program(name)).exists() for name in _BUILT):
        say("building Kubernetes from Debian's source package (once; some ten minutes of processor)")
        _build()
    if not Path(plugin_python()).exists():
        subprocess.run([sys.executable, "-m", "venv", str(cache() / "venv")], check=True, timeout=300)
        pip = [plugin_python(), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "grpcio", "grpcio-tools", "setuptools<80"], check=True, timeout=600)


def _install(packages: list[str]) -> None:
    subprocess.run([Path(__file__).parents[1] / "setup/apt_install", *packages], check=True, timeout=2400)


def _sources() -> str:
    """Return apt lines of sources for what this machine takes its packages from."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    return "".join(f"deb-src {line}\n" for line in sorted(set(found)) if line.endswith(" main"))


def _build() -> None:
    source, tree = cache() / "src", cache() / _IMPORT_PATH
    (source / "lists/partial").mkdir(parents=True, exist_ok=True)
    (source / "sources.list").write_text(_sources())
    lists = [
        *("-o", f"Dir::Etc::sourcelist={source}/sources.list", "-o", "Dir::Etc::sourceparts=-"),
        *("-o", f"Dir::State::lists={source}/lists"),
    ]
    if not (tree / "cmd/kubelet").is_dir():
        subprocess.run(["apt-get", *lists, "update", "-qq"], check=True, timeout=600)
        fetch = ["apt-get", *lists, "source", "-qq", "--download-only", "kubernetes"]
        subprocess.run(fetch, check=True, timeout=1800, cwd=source)
        shutil.rmtree(tree, ignore_errors=True)
        tree.mkdir(parents=True)
        [archive] = source.glob("kubernetes_*.orig.tar.*")
        subprocess.run(["tar", "-xf", str(archive), "-C", str(tree), "--strip-components=1"], check=True, timeout=600)
    (tree / "version.txt").write_text("".join(f"{name}={value}\n" for name, value in _MARKED.items()))
    inner = tree / ".go/src/k8s.io/kubernetes"
    inner.parent.mkdir(parents=True, exist_ok=True)
    if not inner.is_symlink():
        inner.symlink_to("../../..")
    environment = os.environ | {
        "PATH": f"/usr/lib/go-1.19/bin:{os.environ['PATH']}",
        "GO111MODULE": "off",
        "GOFLAGS": "",
        "GOPATH": str(tree / ".go"),
        "GOCACHE": str(source / "gocache"),
        "CGO_ENABLED": "0",
        "KUBE_GIT_VERSION_FILE": str(tree / "version.txt"),
    }
    what = " ".join(f"cmd/{name}" for name in _BUILT)
    with (source / "build.log").open("w") as log:
        subprocess.run(
            ["nice", "make", f"WHAT={what}"],
            check=True,
            timeout=5400,
            cwd=tree,
            env=environment,
            stdout=log,
            stderr=log,
        )
    Path(program("kubelet")).parent.mkdir(exist_ok=True)
    for name in _BUILT:
        shutil.copy(tree / "_output/bin" / name, program(name))
    shutil.rmtree(source / "gocache", ignore_errors=True)
