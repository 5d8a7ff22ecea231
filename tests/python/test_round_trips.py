"""How many requests an eval costs, and that repeats of a request do not repeat a command."""

from __future__ import annotations

import pytest

from inspect_daytona import DaytonaSandboxEnvironment
from local_daytona import LocalDaytona

pytestmark = pytest.mark.anyio


def all_requests(daytona: LocalDaytona) -> int:
    return sum(daytona.requests(method) for method in ("GET", "POST", "PUT", "DELETE"))


async def test_a_sample_starts_with_a_create_a_wait_and_an_upload(
    daytona: LocalDaytona, sandbox: DaytonaSandboxEnvironment
) -> None:
    assert daytona.requests("POST", "/api/sandbox") == 1
    assert daytona.requests("POST", "/toolbox") <= 1
    assert all_requests(daytona) <= 3


async def test_exec_write_and_read_are_one_request_each(
    daytona: LocalDaytona, sandbox: DaytonaSandboxEnvironment
) -> None:
    # the first one may have to learn where it is
    await sandbox.exec(["true"])
    daytona.reset()
    assert (await sandbox.exec(["echo", "short"])).stdout == "short\n"
    assert all_requests(daytona) == 1
    assert (await sandbox.exec(["cat"], input="small")).stdout == "small"
    assert all_requests(daytona) == 2
    await sandbox.write_file("some/file", "text")
    assert all_requests(daytona) == 3
    assert await sandbox.read_file("some/file") == "text"
    assert all_requests(daytona) == 4


@pytest.mark.parametrize("overlap", [False, True], ids=["after", "during"])
async def test_a_replayed_request_runs_its_command_once(
    daytona: LocalDaytona, sandbox: DaytonaSandboxEnvironment, overlap: bool
) -> None:
    daytona.fault("POST", "/toolbox/*/process/execute", "replay", overlap=overlap)
    for _ in range(3):
        assert (await sandbox.exec(["sh", "-c", "sleep 0.1; echo ran >> runs; echo said"])).stdout == "said\n"
    daytona.reset()
    assert await sandbox.read_file("runs") == "ran\n" * 3


@pytest.mark.parametrize("kind", ["reset_before", "reset_after"])
async def test_a_lost_answer_is_fetched_again_and_the_command_runs_once(
    daytona: LocalDaytona, sandbox: DaytonaSandboxEnvironment, kind: str
) -> None:
    daytona.fault("POST", "/toolbox/*/process/execute", kind, times=2)
    assert (await sandbox.exec(["sh", "-c", "echo ran >> runs; echo said"])).stdout == "said\n"
    assert await sandbox.read_file("runs") == "ran\n"
