"""A project's devcontainer.json: where it is looked for, what counts of it, and files that are made to do harm."""

import os
import socket
import time
from pathlib import Path

import pytest
from devgw_environment.project import features
from devgw_environment.project.document import parse
from devgw_environment.project.errors import ProjectError
from devgw_environment.project.locate import MOST_BYTES, ProjectFile, choose_file, find_file, list_projects, read_file
from devgw_environment.project.substitution import substitute
from devgw_environment.project.text import shown
from devgw_environment.project.variables import settle_variables, shell_lines

FIXED, PLAIN = ".devcontainer/devcontainer.json", ".devcontainer.json"


def put(folder: Path, *names: str, text: str = "{}") -> None:
    """Write files, folders included."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        ([], None),
        ([PLAIN], PLAIN),
        ([PLAIN, FIXED], FIXED),
        ([".devcontainer/gpu/devcontainer.json"], ".devcontainer/gpu/devcontainer.json"),
        ([".devcontainer/gpu/devcontainer.json", PLAIN], PLAIN),
        ([".devcontainer/a/b/devcontainer.json"], None),  # one level, says the specification
    ],
)
def test_a_project_has_its_file_where_the_specification_looks(
    tmp_path: Path, there: list[str], chosen: str | None
) -> None:
    """In this order; a named one where it is the only one."""
    put(tmp_path, *there)
    found = choose_file(tmp_path)
    assert (found and found.path) == (chosen and tmp_path / chosen)


def test_several_named_ones_are_for_the_person_to_choose_from(tmp_path: Path) -> None:
    """The message names them and the hint can be typed."""
    put(tmp_path, *(f"p/.devcontainer/{name}/devcontainer.json" for name in ("cpu", "gpu")))
    with pytest.raises(ProjectError, match=r"several dev containers \(cpu, gpu\)") as caught:
        choose_file(tmp_path / "p")
    assert find_file(tmp_path, Path(caught.value.hint.split()[-1])).path.parent.name == "cpu"
    assert find_file(tmp_path, Path("p/.devcontainer/gpu/devcontainer.json")).folder == tmp_path / "p"


def test_the_projects_of_a_workspace_are_itself_and_its_folders(tmp_path: Path) -> None:
    """Clones lie one level deep; links to folders outside are listed and refused when they are read."""
    put(tmp_path, f"a/{FIXED}", f"b/{PLAIN}", f"c/d/{PLAIN}")
    assert [file.folder.name for file in list_projects(tmp_path)] == ["a", "b"]
    for outside in ("..", "/etc", "../../x"):
        with pytest.raises(ProjectError, match="is not in"):
            find_file(tmp_path, Path(outside))
    with pytest.raises(ProjectError, match=r"has no devcontainer\.json"):
        find_file(tmp_path, Path("c"))


def test_a_link_may_not_lead_out_of_the_workspace(tmp_path: Path) -> None:
    """A clone shall not say which of its user's files is read and shown; neither by its file nor by its folder."""
    workspace = tmp_path / "workspace"
    put(tmp_path, "secret", "folder/devcontainer.json", text="token")
    put(workspace, "real/plain.json", text="{}")
    targets = {"out": tmp_path / "secret", "in": workspace / "real/plain.json", "circle": workspace / "circle" / PLAIN}
    for name, target in targets.items():
        (workspace / name).mkdir(parents=True)
        (workspace / name / PLAIN).symlink_to(target)
    (workspace / "by-folder").mkdir()
    (workspace / "by-folder/.devcontainer").symlink_to(tmp_path / "folder")
    assert read_file(find_file(workspace, Path("in")), workspace) == b"{}"
    for name in ("out", "by-folder"):
        with pytest.raises(ProjectError, match="is a link out of the workspace") as caught:
            read_file(find_file(workspace, Path(name)), workspace)
        assert "token" not in caught.value.message
    with pytest.raises(ProjectError, match="cannot be read"):
        read_file(find_file(workspace, Path("circle")), workspace)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe without a writer, a socket, a folder, a file that may not be read, one that has gone."""
    path = tmp_path / PLAIN
    file = ProjectFile(tmp_path, path)
    os.mkfifo(path)
    with pytest.raises(ProjectError, match="not a regular file"):
        read_file(file, tmp_path)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        with pytest.raises(ProjectError, match="cannot be read"):
            read_file(file, tmp_path)
    path.unlink()
    with pytest.raises(ProjectError, match="cannot be read: No such file"):
        read_file(file, tmp_path)
    path.mkdir()
    with pytest.raises(ProjectError, match="not a regular file"):
        read_file(file, tmp_path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """A terabyte (sparse) as quickly as the byte that is too many."""
    path = tmp_path / PLAIN
    path.write_bytes(b" " * MOST_BYTES)
    assert len(read_file(ProjectFile(tmp_path, path), tmp_path)) == MOST_BYTES
    for size in (MOST_BYTES + 1, 2**40):
        os.truncate(path, size)
        started = time.monotonic()
        with pytest.raises(ProjectError, match="larger than 64 KiB"):
            read_file(ProjectFile(tmp_path, path), tmp_path)
        assert time.monotonic() - started < 5


WELL_KNOWN = """// For format details, see https://aka.ms/devcontainer.json
{
    "name": "Python 3", /* of a template */
    "image": "mcr.microsoft.com/devcontainers/python:1-3.12-bookworm",
    "features": { "ghcr.io/devcontainers/features/git:1": {}, "ghcr.io/devcontainers/features/docker-in-docker:2": {} },
    // "forwardPorts": [],
    "forwardPorts": [8000], "privileged": true, "mounts": ["source=/,target=/host,type=bind"],
    "runArgs": ["--privileged", "-v", "/:/host"], "capAdd": ["SYS_ADMIN"], "initializeCommand": "id",
    "customizations": { "vscode": { "extensions": [] } },
    "postCreateCommand": "pip3 install --user -r requirements.txt", // as the user
    "postStartCommand": ["git", "status"],
    "remoteEnv": { "A": "1", "B": null }, "containerEnv": { "A": "0", "C": "http://x//y" },
}
"""


def test_comments_and_trailing_commas_are_read() -> None:
    """As templates are shipped; `//` inside a string is none."""
    found = parse(b"\xef\xbb\xbf" + WELL_KNOWN.encode())
    assert found.commands == {
        "postCreateCommand": {"": "pip3 install --user -r requirements.txt"},
        "postStartCommand": {"": ("git", "status")},
    }
    assert found.variables == ({"A": "0", "C": "http://x//y"}, {"A": "1", "B": None})


def test_what_would_widen_the_policy_is_left_out_and_said() -> None:
    """In one line, with the reason."""
    assert parse(WELL_KNOWN.encode()).left_out == (
        "capAdd, forwardPorts, mounts, privileged, runArgs (the policy decides)",
        "image (the image is chosen by 'devgw create --image')",
        "initializeCommand (not run here)",
    )


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ('"a && b"', {"": "a && b"}),
        ('["a", "b c"]', {"": ("a", "b c")}),
        ('{"x": "a", "y": ["b", "c"]}', {"x": "a", "y": ("b", "c")}),
        ('{"x": ""}', None),
        ('""', None),
        ("[]", None),
        ("null", None),
    ],
)
def test_a_command_has_three_forms(given: str, read: object) -> None:
    """A line for the shell, a program with its arguments, or several of these side by side."""
    assert parse(f'{{"postCreateCommand": {given}}}'.encode()).commands.get("postCreateCommand") == read


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b'{"a": ', "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b"[" * MOST_BYTES, "nested too deeply"),
        (b'{"a":' * 10_000, "nested too deeply"),
        (b'{"n": ' + b"9" * 50_000 + b"}", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'"x"', "not a JSON object"),
        (b'{"postCreateCommand": 7}', "must be a string"),
        (b'{"postCreateCommand": ["a", 1]}', "must be a string"),
        (b'{"postCreateCommand": {"x": {"y": "z"}}}', "must be a string"),
        (b'{"postCreateCommand": "a\\u0000b"}', "NUL"),
        (b'{"postCreateCommand": "\\ud800"}', "not JSON"),
        (b'{"remoteEnv": ["A"]}', "must be an object"),
        (b'{"remoteEnv": {"A": 1}}', "must be a string"),
        (b'{"features": "git"}', "must be an object"),
        (b'{"remoteEnv": {' + b",".join(b'"A%d": ""' % n for n in range(201)) + b"}}", "more than 200"),
        (b'{"postStartCommand": {' + b",".join(b'"%d": "a"' % n for n in range(33)) + b"}}", "more than 32"),
    ],
)
def test_a_file_that_is_not_as_the_specification_says_is_refused(content: bytes, said: str) -> None:
    """With one line, whatever it holds."""
    with pytest.raises(ProjectError, match=said) as caught:
        parse(content)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300


@pytest.mark.parametrize("gpu", ["{}", '{"cores": 1}', "[]", "true", '"optional"'])
def test_a_requirement_for_a_gpu_has_many_forms(gpu: str) -> None:
    """An object among them."""
    asks = parse(f'{{"hostRequirements": {{"gpu": {gpu}}}}}'.encode()).asks_gpu
    assert asks == (gpu != '"optional"')


def test_a_terminal_is_shown_no_control_characters() -> None:
    """A key or a file's name may hold some."""
    (left_out,) = parse(b'{"\\u001b]0;owned\\u0007": 1}').left_out
    assert left_out == r"\x1b]0;owned\x07 (unknown)"
    assert len(shown("x" * 10_000)) == 120


def test_places_and_variables_are_put_in_and_the_rest_is_the_shells() -> None:
    """containers.dev, "Variables in devcontainer.json"; `${HOME}` is none of them."""
    text = "${localWorkspaceFolderBasename} ${containerEnv:A} ${localEnv:B:or this} ${HOME} $A ${unknown:x}"
    assert substitute(text, Path("/workspace/p"), {"A": "1"}) == "p 1 or this ${HOME} $A ${unknown:x}"


def test_variables_that_sessions_or_the_gateway_set_stay_as_they_are() -> None:
    """And those that change how every shell reads; the rest is the user's own affair."""
    asked = {"LD_PRELOAD": "x.so", "HOME": "/", "BASH_ENV": "x", "DEVGW_USER": "root", "NVIDIA_VISIBLE_DEVICES": "all"}
    asked |= {"https_proxy": "http://x", "a b": "1", "UID": "0", "IFS": "x", "NUL": "\0"}
    settled, refused = settle_variables([{**asked, "OK": "1", "GONE": None}], Path("/w"), {"https_proxy": "mine"})
    assert settled == {"OK": "1", "GONE": None}
    assert sorted(refused) == sorted(asked)
    assert settle_variables([{"https_proxy": "http://x"}], Path("/w"), {})[0] == {"https_proxy": "http://x"}


def test_what_a_session_adds_is_made_from_what_the_container_has() -> None:
    """containers.dev: `${containerEnv:NAME}` in `remoteEnv` is the container's, `containerEnv` included."""
    container = {"HOME_OF_APP": "/srv/app", "LEVEL": "info", "PATH": "/srv/app/bin:${containerEnv:PATH}"}
    session = {
        "PYTHONPATH": "${containerEnv:HOME_OF_APP}/lib:${containerEnv:GIVEN}",
        "LEVEL": "${containerEnv:LEVEL},debug",
        "PATH": "/late:${containerEnv:PATH}",
        "HOME_OF_APP": None,
    }
    settled, refused = settle_variables([container, session], Path("/w"), {"GIVEN": "g", "PATH": "/usr/bin"})
    assert settled == {
        "HOME_OF_APP": None,
        "LEVEL": "info,debug",
        "PATH": "/late:/srv/app/bin:/usr/bin",
        "PYTHONPATH": "/srv/app/lib:g",
    }
    assert refused == []


def test_a_path_keeps_the_environments_own_folders() -> None:
    """`"PATH": "/only"` would leave a session without `ls`."""
    given = {"PATH": "/opt/devgw/bin:/usr/bin"}
    for asked in ("/only", "/only:${containerEnv:PATH}", "/only:/usr/bin"):
        path = (settle_variables([{"PATH": asked}], Path("/w"), given)[0]["PATH"] or "").split(":")
        assert path[0] == "/only"
        assert set(path) == {"/only", "/opt/devgw/bin", "/usr/bin"}


def test_a_value_is_no_program_of_the_shell() -> None:
    """Quotes, dollars and line ends arrive as they are written."""
    assert shell_lines({"A": "it's $(id)\n`x`", "B": None}) == "export A='it'\"'\"'s $(id)\n`x`'\nunset B\n"


def test_features_are_compared_with_what_is_here(tmp_path: Path) -> None:
    """Nothing is installed: what is there is there, what lacks is named, and another Python is said."""
    (tmp_path / "node").write_text("")
    (tmp_path / "node").chmod(0o755)
    (tmp_path / "python3").symlink_to("/bin/true")
    official = "ghcr.io/devcontainers/features"
    asked = {
        f"{official}/node:1": {"version": "20"},
        f"{official}/common-utils@sha256:aa": {},
        f"{official}/go:1": {},
        f"{official}/docker-in-docker:2": {},
        f"{official}/nvidia-cuda:1": {},
        f"{official}/python:1": {"version": "2.7"},
        "./own": {},
    }
    lacking, differing = features.lacking_features(asked, str(tmp_path), lambda: True)
    assert lacking == ["go", "docker-in-docker", "own"]
    assert differing[0].startswith("python 2.7 (this is 3.")
    assert "nvidia-cuda" in features.lacking_features(asked, str(tmp_path), lambda: False)[0]
    fitting = {f"{official}/python:1": {"version": version} for version in ("3", "latest", "os-provided")}
    assert features.lacking_features(fitting, str(tmp_path), lambda: False) == ([], [])
