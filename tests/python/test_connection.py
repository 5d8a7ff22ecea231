"""What Inspect shows a person, and the human agent, of the way into a sandbox."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from inspect_ai.util._sandbox.lifecycle import sandbox_lifecycle_scope

import compose_project
from exchange import missing
from inspect_daytona import DaytonaSandboxEnvironment
from local_daytona import LocalDaytona, run
from one_sample import one_sample

pytestmark = pytest.mark.anyio


async def test_a_sandbox_is_entered_by_the_command_of_this_package_as_the_user_that_is_asked_for(
    daytona: LocalDaytona, sandbox: DaytonaSandboxEnvironment
) -> None:
    command = f"inspect-daytona shell {sandbox.sandbox_id}"
    assert (await sandbox.connection()).command == command
    assert (await sandbox.connection(user="root")).command == f"{command} --user 'root'"
    assert daytona.requests("POST", "ssh-access") == 0, "nothing is asked before somebody enters"


COMPOSE = """\
services:
  default: {build: image, command: sleep infinity}
  web: {build: image, command: sleep infinity}
"""


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
async def test_a_service_is_entered_in_its_container_and_not_in_the_machine(
    daytona: LocalDaytona, tmp_path: Path
) -> None:
    compose_project.busybox_image(tmp_path / "image")
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    containers = []
    async with one_sample(daytona, str(tmp_path / "compose.yaml")) as services:
        for service in services.values():
            sandbox = service.as_type(DaytonaSandboxEnvironment)
            connection = await sandbox.connection()
            words = connection.command.split(" ")
            assert words[:-1] == ["inspect-daytona", "shell", sandbox.sandbox_id, "--container"]
            # Docker calls a container's host by the beginning of its id
            host = (await sandbox.exec(["hostname"])).stdout.strip()
            assert re.fullmatch(f"{host}[0-9a-f]{{52}}", words[-1])
            assert (connection.type, connection.container) == ("daytona", sandbox.sandbox_name)
            as_root = await sandbox.connection(user="root")
            assert as_root.command == f"{connection.command} --user 'root'"
            containers.append(words[-1])
        assert len(set(containers)) == 2
        assert daytona.requests("POST", "ssh-access") == 0, "nothing is asked before somebody enters"
    with pytest.raises(ConnectionError, match=sandbox.sandbox_name):
        await sandbox.connection()


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
