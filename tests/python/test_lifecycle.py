"""The end of an eval: what is deleted, what is reported, and what is forgotten."""

from __future__ import annotations

import logging

import pytest
from inspect_ai.util._sandbox.lifecycle import sandbox_lifecycle_scope

from inspect_daytona import DaytonaSandboxEnvironment, _lifecycle
from inspect_daytona._session import current_batch
from local_daytona import LocalDaytona, run, wait_until

pytestmark = pytest.mark.anyio


async def test_a_cleanup_without_time_names_what_may_be_left(
    daytona: LocalDaytona, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    provider = DaytonaSandboxEnvironment
    monkeypatch.setattr(_lifecycle, "FINISH_SECONDS", 0.2)
    with sandbox_lifecycle_scope(), caplog.at_level(logging.ERROR):
        await provider.task_init("startup", None)
        environments = await provider.sample_init("task", None, {})
        sandbox = environments["default"]
        assert isinstance(sandbox, DaytonaSandboxEnvironment)
        daytona.fault("DELETE", "/api/sandbox/*", "none", delayMilliseconds=2000)
        await provider.task_cleanup("shutdown", None, cleanup=True)
        assert len(current_batch().runs) == 1, "the next call tries again"
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert f"inspect sandbox cleanup daytona {sandbox.sandbox_id}" in said
    assert sandbox.sandbox_name in said
    wait_until(lambda: daytona.names() == [], "the delete that was under way is through")


@pytest.mark.parametrize("cleanup", [True, False], ids=["deleted", "kept"])
async def test_a_finished_run_is_forgotten_and_what_it_keeps_survives_later_evals(
    daytona: LocalDaytona, cleanup: bool
) -> None:
    provider = DaytonaSandboxEnvironment
    with sandbox_lifecycle_scope():
        await provider.task_init("startup", None)
        await provider.sample_init("task", None, {})
        await provider.task_cleanup("shutdown", None, cleanup=cleanup)
        assert current_batch().runs == []
        kept = daytona.names()
        assert len(kept) == (0 if cleanup else 1)
        await provider.task_init("startup", None)
        await provider.sample_init("task", None, {})
        await provider.task_cleanup("shutdown", None, cleanup=True)
        assert daytona.names() == kept
    daytona.delete_all()


PROGRAM = """
import anyio, inspect_daytona
from inspect_ai.util._sandbox.lifecycle import sandbox_lifecycle_scope
provider = inspect_daytona.DaytonaSandboxEnvironment
async def main():
    with sandbox_lifecycle_scope():
        await provider.task_init("startup", None)
        await provider.sample_init("task", None, {})
        await provider.task_cleanup("shutdown", None, cleanup=False)
anyio.run(main)
"""


def test_a_kept_sandbox_of_a_daytona_inside_the_process_is_not_said_to_outlive_it() -> None:
    done = run("-c", PROGRAM, variables={"DAYTONA_API_URL": "local"})
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "until this process ends" in said
    assert "inspect sandbox cleanup" not in said
    assert "24 hours" not in said
