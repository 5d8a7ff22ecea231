"""Evals whose tasks bring an image: prepared once, in task_init, for all samples that share it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import anyio
import inspect_ai
import pytest
from inspect_ai import Task
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.dataset import Sample
from inspect_ai.solver import TaskState
from inspect_ai.util import sandbox
from inspect_ai.util._sandbox.lifecycle import sandbox_lifecycle_scope

from conftest import BACKEND
from inspect_daytona import DaytonaSandboxEnvironment, _lifecycle
from local_daytona import LocalDaytona, serve
from tool_calls import evaluate, python_solver, scripted

SNAPSHOTS = "/snapshots"


@pytest.fixture(scope="module")
def images_server() -> Iterator[LocalDaytona]:
    with serve(IMAGES="python:3.12=host,debian:12=host") as running:
        yield running


@pytest.fixture
def images(images_server: LocalDaytona, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LocalDaytona:
    """A server with two images and no snapshots of earlier tests, in an empty directory."""
    images_server.connect(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for snapshot in prepared(images_server):
        images_server.call("DELETE", f"{SNAPSHOTS}/{snapshot['id']}")
    images_server.reset()
    return images_server


def prepared(server: LocalDaytona) -> list[dict[str, object]]:
    """The snapshots that evals made."""
    items = server.call("GET", f"{SNAPSHOTS}?limit=200&name=inspect-")["items"]
    return [item for item in items if item["name"].startswith("inspect-")]


def compose(text: str, name: str = "compose.yaml") -> str:
    Path(name).write_text(text)
    return name


def test_progress_is_shown_by_the_thread_of_the_event_loop(
    images: LocalDaytona, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose("services: {default: {image: 'python:3.12'}}")
    shown: list[tuple[str, threading.Thread]] = []
    monkeypatch.setattr(_lifecycle, "_show", lambda line: shown.append((line, threading.current_thread())))

    async def prepare() -> None:
        with sandbox_lifecycle_scope():
            await DaytonaSandboxEnvironment.task_init("startup", config)

    anyio.run(prepare, backend=BACKEND)
    assert any("Snapshot" in line for line, _ in shown)
    assert {thread for _, thread in shown} == {threading.current_thread()}


def checking(
    line: str, expected: str, samples: list[Sample] | None = None, config: str = "compose.yaml"
) -> Task:
    """A task that runs a line in every sample."""

    async def action(state: TaskState) -> None:
        outcome = await sandbox().exec(["sh", "-c", line])
        assert outcome.stdout == expected, outcome

    return Task(
        dataset=samples or [Sample(id="one", input="go")],
        solver=python_solver(action),
        sandbox=("daytona", str(Path(config).resolve())),
    )


def test_many_samples_of_one_image_make_one_snapshot_before_the_first_sandbox(images: LocalDaytona) -> None:
    compose("services:\n  default:\n    image: python:3.12\n    working_dir: /opt/w\n    mem_limit: 2g\n")
    samples = [Sample(id=str(number), input="go") for number in range(12)]
    log = evaluate(checking("pwd", "/opt/w\n", samples), max_samples=12)
    assert log.status == "success", log.error
    assert images.requests("POST", SNAPSHOTS) == 1
    [snapshot] = prepared(images)
    assert (snapshot["imageName"], snapshot["mem"]) == ("python:3.12", 2)
    assert images.names() == []


def test_a_second_eval_finds_the_snapshot_of_the_first(images: LocalDaytona) -> None:
    compose("services:\n  default:\n    image: python:3.12\n")
    for _ in range(2):
        assert evaluate(checking("echo ok", "ok\n")).status == "success"
    assert images.requests("POST", SNAPSHOTS) == 1


def test_a_whole_single_service_works(images: LocalDaytona) -> None:
    Path("service.env").write_text("FROM_FILE=file\n")
    compose(
        "services:\n"
        "  default:\n"
        "    image: python:3.12\n"
        "    env_file: service.env\n"
        "    environment: {WORD: hello}\n"
        "    working_dir: /tmp/service\n"
        '    command: ["sh", "-c", "echo $$WORD $$FROM_FILE > ready; exec sleep 1000"]\n'
        "    healthcheck: {test: [CMD, test, -s, ready], interval: 100ms, retries: 100}\n"
    )
    assert evaluate(checking("cat ready", "hello file\n")).status == "success"


def test_a_service_that_does_not_become_healthy_fails_the_sample_with_its_words(images: LocalDaytona) -> None:
    compose(
        "services:\n  default:\n    image: python:3.12\n"
        '    healthcheck: {test: "echo still starting; exit 1", interval: 50ms, retries: 1}\n'
    )
    log = evaluate(checking("true", ""))
    assert log.status == "error"
    assert log.error
    assert "did not become healthy" in log.error.message
    assert "still starting" in log.error.message
    assert images.names() == []


def test_each_image_of_samples_metadata_is_prepared_once_before_the_samples(images: LocalDaytona) -> None:
    compose(
        'services:\n  default:\n    image: ${SAMPLE_METADATA_IMAGE}\n    environment: ["ID=${SAMPLE_METADATA_ID}"]\n'
    )
    samples = [
        Sample(id=f"{image}-{number}", input="go", metadata={"image": image, "id": number})
        for image in ("python:3.12", "debian:12")
        for number in range(3)
    ]
    log = evaluate(checking('test -n "$ID" && echo set', "set\n", samples))
    assert log.status == "success", log.error
    assert sorted(str(snapshot["imageName"]) for snapshot in prepared(images)) == ["debian:12", "python:3.12"]
    assert images.requests("POST", SNAPSHOTS) == 2


def test_only_metadata_that_changes_the_image_asks_for_a_preparation_of_its_own(images: LocalDaytona) -> None:
    path = compose(
        'services:\n  default:\n    image: ${SAMPLE_METADATA_IMAGE}\n    environment: ["ID=${SAMPLE_METADATA_ID}"]\n'
    )

    async def ask() -> dict[str, str]:
        metadata = {"image": "a:1", "id": "7", "other": "x"}
        return await DaytonaSandboxEnvironment.task_init_environment(path, metadata)

    assert anyio.run(ask, backend=BACKEND) == {"SAMPLE_METADATA_IMAGE": "a:1"}


def test_an_image_that_cannot_be_had_stops_the_task_before_any_sandbox(images: LocalDaytona) -> None:
    compose("services:\n  default:\n    image: no-such-image:1\n")
    with pytest.raises(PrerequisiteError, match="no-such-image:1"):
        evaluate(checking("true", ""))
    assert images.requests("POST", "/sandbox") == 0


def test_a_dockerfile_beside_the_task_is_built_once_for_all_samples(images: LocalDaytona) -> None:
    Path("Dockerfile").write_text("ARG WHERE=/usr\nFROM python:3.12\nENV WORD=hello\nWORKDIR /usr/share\n")
    samples = [Sample(id=str(number), input="go") for number in range(5)]
    log = evaluate(checking("echo $WORD in $PWD", "hello in /usr/share\n", samples, "Dockerfile"))
    assert log.status == "success", log.error
    assert images.requests("POST", SNAPSHOTS) == 1


def test_without_preparation_sandboxes_are_built_and_no_snapshot_is_made(images: LocalDaytona) -> None:
    compose("services:\n  default:\n    image: python:3.12\n    cpus: 2\nx-daytona:\n  prepare: false\n")
    log = evaluate(checking("echo ok", "ok\n"))
    assert log.status == "success", log.error
    assert images.requests("POST", SNAPSHOTS) == 0


def test_two_tasks_with_different_configurations_in_one_eval_have_a_snapshot_each(
    images: LocalDaytona,
) -> None:
    tasks = []
    for name, image in (("one", "python:3.12"), ("two", "debian:12")):
        compose(
            f"services:\n  default:\n    image: {image}\n    environment: [NAME={name}]\n",
            f"{name}-compose.yaml",
        )
        tasks.append(checking("echo $NAME", f"{name}\n", config=f"{name}-compose.yaml"))
    logs = inspect_ai.eval(
        tasks, model=scripted(), max_tasks=2, sandbox_cleanup=True, log_dir=os.environ["INSPECT_LOG_DIR"]
    )
    assert [log.status for log in logs] == ["success", "success"], [log.error for log in logs]
    assert images.requests("POST", SNAPSHOTS) == 2


def test_a_build_that_fails_stops_the_task_with_the_builders_words(images: LocalDaytona) -> None:
    Path("Dockerfile").write_text("FROM no-such-image:1\nENV A=1\n")
    with pytest.raises(PrerequisiteError, match="could not be built"):
        evaluate(checking("true", "", config="Dockerfile"))
    assert images.requests("POST", "/sandbox") == 0


def test_a_gpu_that_the_server_does_not_have_stops_the_task(images: LocalDaytona) -> None:
    compose("services:\n  default:\n    image: python:3.12\n    gpus: [{count: 1}]\n")
    with pytest.raises(PrerequisiteError, match="GPU"):
        evaluate(checking("true", ""))
    assert images.requests("POST", "/sandbox") == 0
