"""The environment image under the full hardening, met by real clients: ssh, scp, sftp, rsync and a browser."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from gateway.engines.docker.image_build import DockerImageBuilder
from gateway.errors import EngineError
from gateway.images.context import tar_of_text
from tests.e2e.environment_container import UID, USER, EnvironmentContainer, wait_for
from tests.engine.build_image import build_test_image
from tests.engine.made_up_gpus import MADE_UP_GPUS
from tests.support.notebook_client import LoginRefusedError, NotebookClient
from tests.support.processes import running
from tests.support.unix_door import open_door

pytestmark = [pytest.mark.engine, pytest.mark.docker]


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.APIClient]:
    """The engine that DOCKER_HOST names."""
    if not os.environ.get("DOCKER_HOST"):
        pytest.skip("DOCKER_HOST names no engine: tests/engine/private_engine start")
    client = docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto", timeout=120)
    yield client
    client.close()


@pytest.fixture(scope="module")
def image(engine: docker.APIClient) -> str:
    """The image the run was given, or the one of this tree."""
    return os.environ.get("DEVGW_TEST_IMAGE") or build_test_image(os.environ["DOCKER_HOST"]).tag


@pytest.fixture
def fresh(engine: docker.APIClient, image: str) -> Iterator[EnvironmentContainer]:
    """An environment that is laid out but not started."""
    folder = Path(tempfile.mkdtemp(prefix="devgw-image-"))
    folder.chmod(0o755)
    environment = EnvironmentContainer(folder, image, engine)
    environment.lay_out()
    yield environment
    environment.remove()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def environment(engine: docker.APIClient, image: str) -> Iterator[EnvironmentContainer]:
    """A running environment that the tests of this module share."""
    folder = Path(tempfile.mkdtemp(prefix="devgw-image-"))
    folder.chmod(0o755)
    environment = EnvironmentContainer(folder, image, engine)
    environment.lay_out()
    environment.start()
    yield environment
    environment.remove()
    shutil.rmtree(folder)


@pytest.fixture
def notebook(environment: EnvironmentContainer) -> Iterator[str]:
    """The address under which a browser would meet the notebook."""
    with open_door(environment.folder / "run" / "notebook.sock") as base:
        yield base


def test_image_never_runs_as_root_and_holds_no_setuid_program(
    engine: docker.APIClient, image: str, environment: EnvironmentContainer
) -> None:
    """The default user is not root, and nothing inside can lend another user's rights."""
    assert engine.inspect_image(image)["Config"]["User"] not in {"", "0", "root"}
    found = environment.ssh("find / -xdev -type f -perm /6000 2>/dev/null; true")
    assert found.stdout == ""


def test_image_is_labelled_with_what_it_holds(
    engine: docker.APIClient, image: str, environment: EnvironmentContainer
) -> None:
    """The labels are the versions that the programs inside report."""
    labels = engine.inspect_image(image)["Config"]["Labels"]
    said = environment.ssh(
        "python -c 'import platform, torch; print(platform.python_version(), torch.__version__)'"
    ).stdout
    assert said.split() == [labels["org.devgw.python"], labels["org.devgw.torch"]]


def test_no_process_has_a_capability_or_can_gain_one(environment: EnvironmentContainer) -> None:
    """Every process, the session's included, has empty capability sets, no way to more, and the environment's uid."""
    seen = environment.ssh(
        "cat /proc/[0-9]*/status 2>/dev/null | grep -E '^(Uid|Cap(Prm|Eff|Bnd)|NoNewPrivs)' | sort -u"
    ).stdout
    values = {line.split()[0]: line.split()[1] for line in seen.splitlines()}
    assert len(seen.splitlines()) == len(values) == 5
    assert values["CapEff:"] == values["CapBnd:"] == values["CapPrm:"] == "0" * 16
    assert values["NoNewPrivs:"] == "1"
    assert values["Uid:"] == str(UID)


def test_root_file_system_is_read_only_and_the_home_is_not(environment: EnvironmentContainer) -> None:
    """A user can keep files in the home and on the volumes only."""
    assert environment.ssh("touch /opt/devgw/x").returncode != 0
    assert environment.ssh("touch ~/x /workspace/x /checkpoints/x /logs/x /tmp/x").returncode == 0


def test_exec_passes_the_exit_code_and_finds_the_python(environment: EnvironmentContainer) -> None:
    """`ssh host cmd` has the image's Python first on its path, and its exit code comes back."""
    answer = environment.ssh("command -v python; echo $DEVGW_USER; exit 7")
    assert answer.stdout.split() == ["/opt/devgw/bin/python", USER]
    assert answer.returncode == 7


def test_login_shell_with_a_terminal_finds_the_python(environment: EnvironmentContainer) -> None:
    """A login shell, which runs /etc/profile, has a terminal and the same Python."""
    answer = environment.ssh(options=("-tt",), input="command -v python; tty; exit 3\n")
    assert "/opt/devgw/bin/python" in answer.stdout
    assert "/dev/pts/" in answer.stdout
    assert answer.returncode == 3


@pytest.mark.parametrize("user", ["root", "bob", "65532"])
def test_nobody_else_can_log_in(environment: EnvironmentContainer, user: str) -> None:
    """A certificate for the environment's user opens no other account."""
    assert environment.ssh("true", user=user).returncode == 255


def test_certificate_for_somebody_else_is_refused(environment: EnvironmentContainer) -> None:
    """The principal must be the environment's user."""
    try:
        environment.sign("bob")
        assert environment.ssh("true").returncode == 255
    finally:
        environment.sign(USER)
    assert environment.ssh("true").returncode == 0


def test_key_in_authorized_keys_opens_nothing(environment: EnvironmentContainer) -> None:
    """A user's own authorized_keys is not read: the gateway's certificate is the only way in."""
    key = (environment.folder / "id.pub").read_text()
    environment.ssh("mkdir -pm 700 .ssh && cat > .ssh/authorized_keys", input=key)
    without_certificate = ("-o", "CertificateFile=none")
    certificate = environment.folder / "id-cert.pub"
    content = certificate.read_text()
    certificate.unlink()
    try:
        assert environment.ssh("true", options=without_certificate).returncode == 255
    finally:
        certificate.write_text(content)


def test_scp_sftp_and_rsync_bring_files_back_unchanged(environment: EnvironmentContainer, tmp_path: Path) -> None:
    """A megabyte of noise survives the round trip by each of the three."""
    (tmp_path / "sent").write_bytes(os.urandom(1 << 20))
    options, target = environment.ssh_options, f"{USER}@environment"
    shell = " ".join(f"'{word}'" if " " in word else word for word in ["ssh", *options])
    steps = [
        ["scp", *options, tmp_path / "sent", f"{target}:by-scp"],
        ["rsync", "-e", shell, tmp_path / "sent", f"{target}:by-rsync"],
        ["rsync", "-e", shell, f"{target}:by-scp", tmp_path / "back-scp"],
        ["scp", *options, f"{target}:by-rsync", tmp_path / "back-rsync"],
    ]
    for step in steps:
        subprocess.run(step, check=True, capture_output=True, timeout=60)
    batch = f"put {tmp_path}/sent by-sftp\nget by-sftp {tmp_path}/back-sftp\n"
    subprocess.run(
        ["sftp", *options, "-b", "-", target], input=batch, text=True, check=True, capture_output=True, timeout=60
    )
    for way in ("scp", "rsync", "sftp"):
        assert (tmp_path / f"back-{way}").read_bytes() == (tmp_path / "sent").read_bytes(), way


def test_forward_reaches_the_environments_loopback(environment: EnvironmentContainer) -> None:
    """direct-tcpip to 127.0.0.1 meets a server inside, though the environment has no network."""
    serve = "cd /workspace && echo inside > page && (python -m http.server 8123 --bind 127.0.0.1 >/dev/null 2>&1 &)"
    environment.ssh(serve)
    request = "GET /page HTTP/1.0\r\n\r\n"
    answer = wait_for(
        lambda: environment.ssh(options=("-W", "127.0.0.1:8123"), input=request).stdout, 10, "an answer through -W"
    )
    assert answer.endswith("inside\n")


@pytest.mark.slow
def test_torch_compiles_and_runs(environment: EnvironmentContainer) -> None:
    """torch.compile finds its compiler, and what it builds may be executed."""
    code = "import torch; print(torch.compile(lambda x: x * 2 + 1)(torch.ones(3)).tolist())"
    answer = environment.ssh(f"python -c '{code}'")
    assert answer.stdout.strip() == "[3.0, 3.0, 3.0]", answer.stderr


def test_user_installs_packages_into_the_home(environment: EnvironmentContainer) -> None:
    """`pip install` without options works: it goes to ~/.local, and the program it brings is found."""
    project = '[project]\nname = "hello-devgw"\nversion = "1"\n[project.scripts]\nhello = "hello:main"\n'
    environment.ssh("mkdir -p /workspace/hello && cat > /workspace/hello/pyproject.toml", input=project)
    environment.ssh("cat > /workspace/hello/hello.py", input="def main():\n    print('hello')\n")
    installed = environment.ssh("pip install --no-index --no-build-isolation /workspace/hello")
    assert installed.returncode == 0, installed.stderr
    assert environment.ssh("hello").stdout == "hello\n"


def test_notebook_runs_a_cell_as_the_user(notebook: str) -> None:
    """A browser logs in with the password and a kernel executes a cell."""
    browser = NotebookClient(notebook)
    browser.login("first secret")
    assert str(UID) in browser.execute("import os; print(os.getuid(), os.environ['HOME'])")


def test_notebook_refuses_without_a_password(notebook: str) -> None:
    """Neither an empty password nor none at all opens the API."""
    browser = NotebookClient(notebook)
    assert not browser.is_logged_in()
    with pytest.raises(LoginRefusedError):
        browser.login("")


def test_new_notebook_password_counts_at_once(environment: EnvironmentContainer, notebook: str) -> None:
    """After the hash file is replaced the old cookie and the old password are worthless."""
    before = NotebookClient(notebook)
    before.login("first secret")
    environment.set_password("second secret")
    try:
        assert not before.is_logged_in()
        with pytest.raises(LoginRefusedError):
            NotebookClient(notebook).login("first secret")
        NotebookClient(notebook).login("second secret")
    finally:
        environment.set_password("first secret")


@pytest.mark.parametrize(
    ("service", "pattern"), [("listener", "[d]evgw_environment listen"), ("notebook", "[-]m jupyterlab")]
)
def test_killed_part_comes_back_and_sessions_stay(
    environment: EnvironmentContainer, service: str, pattern: str
) -> None:
    """`kill -9` of the listener or the notebook heals itself, and an open session does not notice."""
    argv = ["ssh", *environment.ssh_options, f"{USER}@environment", "cat"]
    with running(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
        session.stdin.write("before\n")
        session.stdin.flush()
        assert session.stdout.readline() == "before\n"
        environment.ssh(f"pkill -9 -f '{pattern}'")
        wait_for(lambda: f"{service}.ended exit_code=-9" in environment.logs(), 5, f"the end of the {service}")
        wait_for(
            lambda: environment.ssh("python -I -m devgw_environment check").returncode == 0, 20, f"{service} healed"
        )
        after, _ = session.communicate("after\n", timeout=10)
        assert after == "after\n"


@pytest.mark.parametrize("socket", ["ssh.sock", "notebook.sock"])
@pytest.mark.parametrize("damage", ["rm {}", "ln -sf /etc/passwd {}", "rm {} && touch {}", "rm {} && mkdir -p {}/deep"])
def test_removed_or_replaced_socket_is_made_again(environment: EnvironmentContainer, socket: str, damage: str) -> None:
    """Whatever a user puts in a socket's place, the socket is back within seconds and has its mode."""
    path = environment.folder / "run" / socket
    environment.ssh(damage.format(*[f"/run/devgw/{socket}"] * 2))
    wait_for(lambda: path.is_socket() and not path.is_symlink(), 4, f"{socket} made again")
    assert path.stat().st_mode & 0o777 == 0o600
    assert environment.ssh("python -I -m devgw_environment check").returncode == 0


def test_stop_ends_every_process_in_time(fresh: EnvironmentContainer) -> None:
    """SIGTERM ends an open shell and a process that hides from its session and ignores the signal."""
    fresh.start()
    fresh.ssh("setsid -f sh -c 'trap \"\" TERM; while :; do sleep 1; done' >/dev/null 2>&1 </dev/null")
    argv = ["ssh", *fresh.ssh_options, "-tt", f"{USER}@environment"]
    with running(argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as shell:
        wait_for(lambda: "connection.opened" in fresh.logs(), 5, "a shell")
        started = time.monotonic()
        fresh.client.stop(fresh.container, timeout=20)
        assert time.monotonic() - started < 10
        assert shell.wait(5) == 255
    assert fresh.client.inspect_container(fresh.container)["State"]["ExitCode"] == 0
    assert "environment.stopped" in fresh.logs()


def test_session_sees_its_gpu_and_no_other(fresh: EnvironmentContainer) -> None:
    """A device injected by UUID is there in an SSH session, with the variable that came with it."""
    fresh.start(gpus=(MADE_UP_GPUS[1],))
    seen = fresh.ssh("env | grep DEVGW_TEST_GPU; ls /dev | grep nvidia").stdout.split()
    assert seen == [f"DEVGW_TEST_GPU_1={MADE_UP_GPUS[1]}", "nvidia1"]


def test_failed_build_ends_with_the_failing_steps_last_lines(engine: docker.APIClient) -> None:
    """The administrator reads what the step said, not the engine's wrapping alone."""
    context = tar_of_text("Dockerfile", "FROM devgw-base:bookworm\nRUN echo fine\nRUN echo the reason; exit 3\n")
    with pytest.raises(EngineError) as caught:
        DockerImageBuilder(engine).build(context, tag=None, arguments={}, labels={}, progress=lambda _line: None)
    assert caught.value.code == "image.build-failed"
    assert "step 3 of 3" in caught.value.message
    assert caught.value.message.endswith("the reason")


def test_unknown_base_is_named_with_a_way_out(engine: docker.APIClient) -> None:
    """Without the base image the error says how to bring one."""
    context = tar_of_text("Dockerfile", "FROM localhost:1/no/such:base\n")
    with pytest.raises(EngineError, match="localhost:1/no/such:base") as caught:
        DockerImageBuilder(engine).build(context, tag=None, arguments={}, labels={}, progress=lambda _line: None)
    assert "--base" in caught.value.hint
