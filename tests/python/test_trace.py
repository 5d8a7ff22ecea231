"""`inspect trace` tells what a sandbox is doing, without what commands are told in confidence."""

from __future__ import annotations

import pytest

from inspect_daytona import DaytonaSandboxEnvironment

pytestmark = pytest.mark.anyio


async def test_commands_and_files_are_traced_without_input_and_environment(
    sandbox: DaytonaSandboxEnvironment, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(13, logger="inspect_daytona._environment"):
        await sandbox.exec(["cat", "x" * 5000], input="hunter2", env={"PASSWORD": "hunter3"})
        await sandbox.write_file("file", "hunter4")
        assert await sandbox.read_file("file") == "hunter4"
    said = [record.getMessage() for record in caplog.records]
    for action in ("Daytona exec", "Daytona write", "Daytona read"):
        begun = [text for text in said if action in text and sandbox.sandbox_name in text]
        assert begun, said
        assert all(len(text) < 2000 for text in begun)
    assert "hunter" not in "".join(said)
