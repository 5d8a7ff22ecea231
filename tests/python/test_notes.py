"""What users are told of the creation of a sandbox: in the log of its sample, and once on the console."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.event import InfoEvent, LoggerEvent
from inspect_ai.log import EvalSample
from inspect_ai.solver import TaskState
from inspect_ai.util import SandboxEnvironmentSpec, sandbox

from local_daytona import LocalDaytona, serve
from tool_calls import evaluate, python_solver

IMAGE = "python:3.12"
CORES = 4


@pytest.fixture(scope="module")
def small_server() -> Iterator[LocalDaytona]:
    with serve(IMAGES=f"{IMAGE}=host", TOTAL_CPU=str(CORES)) as running:
        yield running


@pytest.fixture
def daytona(
    small_server: LocalDaytona, monkeypatch: pytest.MonkeyPatch, empty_directory: Path
) -> Iterator[LocalDaytona]:
    small_server.connect(monkeypatch)
    small_server.reset()
    yield small_server
    assert small_server.names() == []


def warnings(sample: EvalSample) -> list[tuple[str, str]]:
    """Kind and text of what a sample's log says."""

    def whole(text: str) -> str:
        return sample.attachments.get(text.removeprefix("attachment://"), text)

    logged = [
        (event.message.level, whole(event.message.message))
        for event in sample.events
        if isinstance(event, LoggerEvent)
    ]
    info = [
        ("info", whole(str(event.data)))
        for event in sample.events
        if isinstance(event, InfoEvent) and event.source == "daytona"
    ]
    return logged + info


async def nothing(state: TaskState) -> None:
    """Does nothing."""


def test_a_warning_of_a_creation_is_in_the_log_of_each_sample_and_displayed_once(
    daytona: LocalDaytona, empty_directory: Path
) -> None:
    file = empty_directory / "compose.yaml"
    file.write_text(f"services: {{default: {{image: '{IMAGE}', command: sh -c 'echo why >&2; exit 3'}}}}")
    samples = [Sample(id=number, input="go") for number in range(3)]
    task = Task(
        dataset=samples, solver=python_solver(nothing), sandbox=SandboxEnvironmentSpec("daytona", str(file))
    )
    # the second eval has a console of its own, as it were
    for _ in range(2):
        log = evaluate(task, max_samples=3)
        assert log.status == "success", log.error and log.error.message
        assert log.samples
        said = [warnings(sample) for sample in log.samples]
        assert all(len(notes) == 1 and "status 3" in notes[0][1] for notes in said), said
        assert sorted(kind for [(kind, _)] in said) == ["info", "info", "warning"]


def test_a_sample_that_waits_for_the_quota_says_so_once_in_its_own_log(
    daytona: LocalDaytona, empty_directory: Path
) -> None:
    file = empty_directory / "compose.yaml"
    file.write_text(f"services: {{default: {{image: '{IMAGE}', cpus: {CORES}}}}}")

    async def hold(state: TaskState) -> None:
        # until the other one has been refused
        await sandbox().exec(["sleep", "1"])

    task = Task(
        dataset=[Sample(id=number, input="go") for number in range(2)],
        solver=python_solver(hold),
        sandbox=SandboxEnvironmentSpec("daytona", str(file)),
    )
    log = evaluate(task, max_samples=2)
    assert log.status == "success", log.error and log.error.message
    assert log.samples
    said = sorted((warnings(sample) for sample in log.samples), key=len)
    assert said[0] == []
    [(kind, text)] = said[1]
    assert kind == "warning"
    assert "waiting for other sandboxes of this eval" in text
