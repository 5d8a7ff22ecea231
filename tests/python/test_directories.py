"""Where relative paths of samples' configurations start: in the directory of the task, for each of its samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from inspect_ai import Task
from inspect_ai._eval.task.constants import TASK_RUN_DIR_ATTR
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.dataset import Sample
from inspect_ai.solver import TaskState
from inspect_ai.util import ComposeConfig, SandboxEnvironmentSpec, sandbox

from inspect_daytona import DaytonaConfig
from inspect_daytona._config import Directories
from inspect_daytona.errors import DaytonaConfigError
from local_daytona import LocalDaytona, serve
from tool_calls import evaluate, python_solver

IMAGE = "python:3.12"
Config = str | ComposeConfig


@pytest.fixture(scope="module")
def image_server() -> Iterator[LocalDaytona]:
    with serve(IMAGES=f"{IMAGE}=host") as running:
        yield running


@pytest.fixture
def daytona(
    image_server: LocalDaytona, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[LocalDaytona]:
    """A server with an image, and the directory that evals are started in, beside those of the tasks."""
    image_server.connect(monkeypatch)
    (tmp_path / "launch").mkdir()
    monkeypatch.chdir(tmp_path / "launch")
    image_server.reset()
    yield image_server
    assert image_server.names() == []


def model(**service: object) -> ComposeConfig:
    return ComposeConfig.model_validate({"services": {"default": {"image": IMAGE, **service}}})


def with_volume(**options: str) -> ComposeConfig:
    config = {"services": {"default": {"image": IMAGE}}, "volumes": {"data": {"driver_opts": options}}}
    return ComposeConfig.model_validate(config)


def task_in(directory: Path, config: Config, seen: list[str]) -> Task:
    """A task as if loaded from `directory`, whose sample has `config`; adds what the sandbox's `WHOSE` says."""
    directory.mkdir(exist_ok=True)
    (directory / "vars").write_text(f"WHOSE={directory.name}\n")
    text = f"services: {{default: {{image: '{IMAGE}', env_file: vars}}}}"
    (directory / "compose.yaml").write_text(text)

    async def action(state: TaskState) -> None:
        result = await sandbox().exec(["sh", "-c", "echo $WHOSE"])
        seen.append(result.stdout.strip())

    sample = Sample(id="one", input="go", sandbox=SandboxEnvironmentSpec("daytona", config))
    task = Task(name=directory.name, dataset=[sample], solver=[python_solver(action)])
    setattr(task, TASK_RUN_DIR_ATTR, str(directory))
    return task


@pytest.mark.parametrize("config", ["compose.yaml", model(env_file="vars")], ids=["path", "object"])
def test_the_paths_of_a_samples_configuration_start_in_the_tasks_directory(
    daytona: LocalDaytona, tmp_path: Path, config: Config
) -> None:
    # what an eval must not find where it was started
    (tmp_path / "launch/vars").write_text("WHOSE=launch\n")
    seen: list[str] = []
    log = evaluate(task_in(tmp_path / "evals", config, seen))
    assert log.status == "success", log.error and log.error.message
    assert seen == ["evals"]


@pytest.mark.parametrize("config", ["compose.yaml", model(env_file="vars")], ids=["path", "object"])
def test_one_configuration_of_two_tasks_that_means_two_files_is_refused_before_anything_is_created(
    daytona: LocalDaytona, tmp_path: Path, config: Config
) -> None:
    tasks = [task_in(tmp_path / name, config, []) for name in ("first", "second")]
    with pytest.raises(PrerequisiteError) as caught:
        evaluate(tasks)
    for expected in (str(tmp_path / "first"), str(tmp_path / "second"), "absolute paths"):
        assert expected in str(caught.value)
    assert daytona.requests("POST", "/api/sandbox") == 0
    # each alone is no mistake, in the same process and after the other
    for name in ("first", "second"):
        seen: list[str] = []
        log = evaluate(task_in(tmp_path / name, config, seen))
        assert log.status == "success", log.error and log.error.message
        assert seen == [name]


@pytest.mark.parametrize(
    "config",
    [
        None,
        "/somewhere/compose.yaml",
        "../shared/compose.yaml",
        DaytonaConfig.model_validate({"snapshot": "a"}),
        model(volumes=["data:/data", "/etc/hosts:/h"]),
        model(build="/somewhere"),
        model(build={"context": "https://example.org/repository.git", "dockerfile": "docker/Dockerfile"}),
        model(env_file=["/somewhere/vars", "~/vars"]),
        model(volumes=[{"type": "bind", "source": "/data", "target": "/data"}]),
        with_volume(o="size=10m", type="tmpfs", device="tmpfs"),
        with_volume(o="bind", device="/data"),
    ],
    ids=[
        *("none", "absolute", "one file", "settings", "no paths", "absolute build", "build of a URL"),
        *("absolute env_file", "absolute bind", "file system", "absolute volume"),
    ],
)
def test_tasks_may_share_a_configuration_that_means_the_same_everywhere(
    config: Config | DaytonaConfig | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = Directories()
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        directories.remember(config)


def test_tasks_may_not_share_an_object_with_a_volume_of_a_relative_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = Directories()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    directories.remember(with_volume(o="ro,bind", device="data"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(DaytonaConfigError, match="elsewhere"):
        directories.remember(with_volume(o="ro,bind", device="data"))


def test_tasks_may_not_share_a_path_that_links_make_two_files_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = Directories()
    (tmp_path / "target/deep/deeper").mkdir(parents=True)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    (tmp_path / "first/link").symlink_to(tmp_path / "target/deep/deeper")
    (tmp_path / "second/link").mkdir()
    monkeypatch.chdir(tmp_path / "first")
    directories.remember("link/../../shared/compose.yaml")
    monkeypatch.chdir(tmp_path / "second")
    with pytest.raises(DaytonaConfigError, match="absolute paths"):
        directories.remember("link/../../shared/compose.yaml")


@pytest.mark.parametrize(
    "service",
    [
        {"build": "docker"},
        {"build": {"dockerfile": "Dockerfile"}},
        {"volumes": ["./data:/data"]},
        {"volumes": [{"type": "bind", "source": "data", "target": "/data"}]},
        {"env_file": ["/somewhere/vars", "vars"]},
    ],
    ids=["build", "build without context", "bind", "long bind", "env_file"],
)
def test_tasks_may_not_share_an_object_with_relative_paths(
    service: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directories = Directories()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    directories.remember(model(**service))
    # another task of the same directory has an object of its own
    directories.remember(model(**service))
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(DaytonaConfigError, match="elsewhere"):
        directories.remember(model(**service))
    directories.forget()
    assert directories.remember(model(**service)) == str(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    assert directories.of(model(**service)) == str(tmp_path / "elsewhere")
