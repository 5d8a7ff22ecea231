"""What Inspect shows a person, and the human agent, of the way into a sandbox."""

from __future__ import annotations

import pytest
from inspect_ai.util._sandbox.lifecycle import sandbox_lifecycle_scope

from inspect_daytona import DaytonaSandboxEnvironment
from local_daytona import LocalDaytona, run

pytestmark = pytest.mark.anyio


async def test_a_sandbox_is_entered_by_the_command_of_this_package_as_the_user_that_is_asked_for(
    daytona: LocalDaytona, sandbox: DaytonaSandboxEnvironment
) -> None:
    command = f"inspect-daytona shell {sandbox.sandbox_id}"
    assert (await sandbox.connection()).command == command
    assert (await sandbox.connection(user="root")).command == f"{command} --user 'root'"
    assert daytona.requests("POST", "ssh-access") == 0, "nothing is asked before somebody enters"


async def test_a_deleted_sandbox_has_no_connection(daytona: LocalDaytona) -> None:
    provider = DaytonaSandboxEnvironment
    with sandbox_lifecycle_scope():
        await provider.task_init("startup", None)
        environments = await provider.sample_init("task", None, {})
        sandbox = environments["default"]
        assert isinstance(sandbox, DaytonaSandboxEnvironment)
        await provider.sample_cleanup("task", None, environments, interrupted=False)
        with pytest.raises(ConnectionError, match=sandbox.sandbox_name):
            await sandbox.connection()
        await provider.task_cleanup("shutdown", None, cleanup=True)


PROGRAM = """
import anyio, inspect_daytona
from inspect_ai.util._sandbox.lifecycle import sandbox_lifecycle_scope
provider = inspect_daytona.DaytonaSandboxEnvironment
async def main():
    with sandbox_lifecycle_scope():
        await provider.task_init("startup", None)
        environments = await provider.sample_init("task", None, {})
        try:
            await environments["default"].connection()
        except NotImplementedError as ex:
            print(ex)
        await provider.task_cleanup("shutdown", None, cleanup=True)
anyio.run(main)
"""


def test_a_sandbox_inside_the_process_has_no_way_in() -> None:
    done = run("-c", PROGRAM, variables={"DAYTONA_API_URL": "local"})
    assert done.returncode == 0, done.stderr
    assert "inside this process" in done.stdout
