"""The official SDK, sync and async, on a local Daytona: what serves our client must serve theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from daytona import (
    AsyncDaytona,
    CreateSandboxFromSnapshotParams,
    Daytona,
    DaytonaConfig,
    DaytonaNotFoundError,
    Resources,
    Sandbox,
)

from conftest import BACKEND
from local_daytona import LocalDaytona


@pytest.fixture
def config(daytona: LocalDaytona) -> DaytonaConfig:
    return DaytonaConfig(api_url=daytona.url, api_key=daytona.api_key)


@pytest.fixture
def sdk(config: DaytonaConfig) -> Daytona:
    return Daytona(config)


@pytest.fixture
def box(sdk: Daytona) -> Iterator[Sandbox]:
    sandbox = sdk.create(CreateSandboxFromSnapshotParams(name="by-sdk", labels={"purpose": "test"}))
    yield sandbox
    sandbox.delete()


def test_a_sandbox_is_created_found_and_listed(sdk: Daytona, box: Sandbox) -> None:
    assert sdk.get("by-sdk").id == box.id
    assert str(box.state.value if box.state else None) == "started"
    assert box.labels["purpose"] == "test"
    assert box.id in {sandbox.id for sandbox in sdk.list()}


def test_commands_run_with_environment_directory_and_status(box: Sandbox) -> None:
    result = box.process.exec("echo $GREETING; pwd; exit 3", cwd="/tmp", env={"GREETING": "hello"})  # noqa: S108
    assert result.result == "hello\n/tmp\n"
    assert result.exit_code == 3


def test_files_are_uploaded_listed_downloaded_and_deleted(box: Sandbox) -> None:
    contents = bytes(range(256)) * 1000
    box.fs.create_folder("data", "755")
    box.fs.upload_file(contents, "data/bytes")
    assert [file.name for file in box.fs.list_files("data")] == ["bytes"]
    assert box.fs.get_file_info("data/bytes").size == len(contents)
    assert box.fs.download_file("data/bytes") == contents
    box.fs.delete_file("data/bytes")
    assert box.fs.list_files("data") == []


def test_files_survive_a_stop_and_a_start(box: Sandbox) -> None:
    box.fs.upload_file(b"kept", "kept")
    box.stop()
    box.start()
    assert box.fs.download_file("kept") == b"kept"


def test_a_sandbox_that_runs_is_resized_and_keeps_its_processes(sdk: Daytona, box: Sandbox) -> None:
    box.process.exec("sleep 1000 >/dev/null 2>&1 & echo $! > pid")
    box.resize(Resources(cpu=4, memory=8))
    found = sdk.get(box.id)
    assert (found.state and found.state.value, found.cpu, found.memory) == ("started", 4, 8)
    assert box.process.exec("kill -0 $(cat pid)").exit_code == 0


def test_a_blocked_network_may_come_with_a_list(sdk: Daytona) -> None:
    lists = "10.0.0.0/8,172.16.0.0/12"
    sandbox = sdk.create(CreateSandboxFromSnapshotParams(network_block_all=True, network_allow_list=lists))
    assert (sandbox.network_block_all, sandbox.network_allow_list) == (True, lists)
    interfaces = sandbox.process.exec("tail -n +3 /proc/net/dev | cut -d: -f1")
    assert interfaces.result.split() == ["lo"]
    sandbox.delete()


def test_labels_are_replaced(sdk: Daytona, box: Sandbox) -> None:
    box.set_labels({"purpose": "other"})
    assert sdk.get(box.id).labels == {"purpose": "other"}


def test_what_is_not_there_is_the_sdks_own_error(sdk: Daytona, box: Sandbox) -> None:
    with pytest.raises(DaytonaNotFoundError):
        sdk.get("nobody")
    with pytest.raises(DaytonaNotFoundError):
        box.fs.download_file("nothing")


@pytest.mark.anyio
@pytest.mark.skipif(BACKEND == "trio", reason="the SDK runs on asyncio only")
async def test_the_asynchronous_sdk_does_the_same(config: DaytonaConfig) -> None:
    async with AsyncDaytona(config) as sdk:
        box = await sdk.create(CreateSandboxFromSnapshotParams(name="by-async-sdk"))
        try:
            assert (await box.process.exec("id -un")).result == "daytona\n"
            await box.fs.upload_file(b"text", "file")
            assert await box.fs.download_file("file") == b"text"
        finally:
            await box.delete()
