"""Fixtures of the Python tests: a local Daytona for all of them, and Inspect without anybody's settings."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from inspect_ai.util._sandbox.lifecycle import sandbox_lifecycle_scope

from exchange import missing
from inspect_daytona import DaytonaSandboxEnvironment
from local_daytona import LocalDaytona, serve

# Set by `.ci/run`, which installs what tests may lack: then none of them is skipped for it.
EXPECTS_DOCKER = os.environ.get("INSPECT_DAYTONA_TESTS_EXPECT") == "docker"

# The tests must not meet an account, nor spend on it.
for variable in list(os.environ):
    if variable.startswith(("DAYTONA_", "INSPECT_DAYTONA_")):
        del os.environ[variable]

# One backend per process: Inspect keeps locks that belong to the first one. `make test` runs both.
BACKEND = os.environ.setdefault("INSPECT_ASYNC_BACKEND", "asyncio")


def pytest_sessionstart() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # a job in a shell's background ignores Ctrl-C, and so would the processes that tests interrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)
    reason = missing() if EXPECTS_DOCKER else None
    if EXPECTS_DOCKER and reason is None:
        answer = subprocess.run(["docker", "version"], capture_output=True, check=False, text=True)
        reason = answer.stderr if answer.returncode else None
    if reason is not None:
        pytest.exit(f"the tests are to run with a Docker Engine and Compose, but: {reason}", returncode=1)


def pytest_report_header() -> str:
    return f"async backend: {BACKEND}"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return BACKEND


@pytest.fixture(scope="session", autouse=True)
def inspect_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Logs and traces go to a temporary folder, and nothing draws on the terminal."""
    folder = tmp_path_factory.mktemp("inspect")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSPECT_LOG_DIR", str(folder / "logs"))
        patch.setenv("INSPECT_TRACE_FILE", str(folder / "trace.log"))
        patch.setenv("INSPECT_DISPLAY", "none")
        yield


@pytest.fixture(scope="session")
def server() -> Iterator[LocalDaytona]:
    """One server for the whole session."""
    with serve() as running:
        yield running


@pytest.fixture
def daytona(server: LocalDaytona, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalDaytona]:
    """The server without faults or sandboxes, and its settings in the environment; left without sandboxes."""
    server.connect(monkeypatch)
    server.reset()
    yield server
    server.reset()
    left = server.names()
    server.delete_all()
    assert left == []


@pytest.fixture
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, without a compose file that Inspect would find."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
async def sandbox(daytona: LocalDaytona) -> AsyncIterator[DaytonaSandboxEnvironment]:
    """A sandbox as a sample without a configuration gets it; requests count from its creation on."""
    provider = DaytonaSandboxEnvironment
    with sandbox_lifecycle_scope():
        await provider.task_init("startup", None)
        daytona.reset()
        environments = await provider.sample_init("task", None, {})
        sandbox = environments["default"]
        assert isinstance(sandbox, DaytonaSandboxEnvironment)
        yield sandbox
        await provider.sample_cleanup("task", None, environments, interrupted=False)
        await provider.task_cleanup("shutdown", None, cleanup=True)
