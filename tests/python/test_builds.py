"""Evals whose tasks bring a Dockerfile that a real Docker Engine builds. `.ci/engine` runs one where none answers."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.dataset import Sample
from inspect_ai.solver import TaskState
from inspect_ai.util import sandbox

from local_daytona import LocalDaytona, serve
from tool_calls import evaluate, python_solver

SNAPSHOTS = "/snapshots"
BUSYBOX = Path("/bin/busybox")
PROGRAMS = [
    "sh",
    "cat",
    "chmod",
    "echo",
    "grep",
    "id",
    "ls",
    "mkdir",
    "mount",
    "pwd",
    "sleep",
    "stat",
    "test",
    "true",
    "wc",
]


def docker(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["docker", *arguments], capture_output=True, check=False, **options)


@pytest.fixture(scope="module")
def base() -> Iterator[str]:
    """An image of one static program, which no registry needs to have."""
    try:
        answers = docker("version").returncode == 0
    except FileNotFoundError:
        answers = False
    if not answers:
        pytest.skip("no Docker Engine answers: apt-get install docker.io")
    if not BUSYBOX.exists():
        pytest.skip("there is no static busybox: apt-get install busybox-static")
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(BUSYBOX, "bin/busybox")
        for name in PROGRAMS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name in ("tmp", "var/tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
            archive.addfile(folder)
        accounts = tarfile.TarInfo("etc/passwd")
        passwd = b"root:x:0:0::/:/bin/sh\n"
        accounts.size = len(passwd)
        archive.addfile(accounts, io.BytesIO(passwd))
    name = f"inspect-daytona-test/evals:{uuid.uuid4().hex}"
    imported = docker("import", "-", name, input=content.getvalue())
    assert imported.returncode == 0, imported.stderr
    yield name
    docker("image", "prune", "--all", "--force", "--filter", f"label=inspect-daytona-test={name}")
    docker("image", "rm", "--force", name)


@pytest.fixture
def builder(base: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LocalDaytona]:
    """A server that builds, and an empty directory."""
    monkeypatch.chdir(tmp_path)
    with serve() as running:
        running.connect(monkeypatch)
        yield running
        assert running.names() == []


def dockerfile(base: str, rest: str) -> None:
    """A Dockerfile that no other test has."""
    Path("Dockerfile").write_text(f"FROM {base}\nLABEL inspect-daytona-test={base}\n{rest}")


def checking(line: str, expected: str, samples: int = 1, config: str = "Dockerfile") -> Task:
    """A task that runs a line in every sample."""

    async def action(state: TaskState) -> None:
        outcome = await sandbox().exec(["sh", "-c", line])
        assert outcome.stdout == expected, outcome

    return Task(
        dataset=[Sample(id=str(number), input="go") for number in range(samples)],
        solver=python_solver(action),
        sandbox=("daytona", str(Path(config).resolve())),
    )


def test_fifty_samples_share_one_build(builder: LocalDaytona, base: str) -> None:
    Path("src").mkdir()
    Path("src/word.txt").write_text("from the context\n")
    # every run of the second line gives another file
    dockerfile(base, "COPY src /src\nRUN cat /proc/sys/kernel/random/uuid > /id\n")
    ids: set[str] = set()

    async def action(state: TaskState) -> None:
        outcome = await sandbox().exec(["cat", "/src/word.txt", "/id"])
        word, _, id = outcome.stdout.partition("\n")
        assert word == "from the context"
        ids.add(id)

    task = Task(
        dataset=[Sample(id=str(number), input="go") for number in range(50)],
        solver=python_solver(action),
        sandbox=("daytona", str(Path("Dockerfile").resolve())),
    )
    log = evaluate(task, max_samples=50, max_sandboxes=50)
    assert log.status == "success", log.error
    assert len(ids) == 1
    assert builder.requests("POST", SNAPSHOTS) == 1
    assert builder.requests("POST", "bulk-upload") == 0, "the image brings what runs commands"


def test_a_whole_service_of_a_dockerfile_works(builder: LocalDaytona, base: str) -> None:
    Path("service.env").write_text("FROM_FILE=file\n")
    dockerfile(base, "ARG WORD\nRUN echo $WORD > /built\n")
    Path("compose.yaml").write_text(
        "services:\n"
        "  default:\n"
        "    build: {context: ., args: {WORD: argument}}\n"
        "    env_file: service.env\n"
        "    environment: {WORD: hello}\n"
        "    working_dir: /srv/work\n"
        '    command: ["sh", "-c", "echo $$(cat /built) $$WORD $$FROM_FILE > ready; exec sleep 1000"]\n'
        "    healthcheck: {test: [CMD, test, -s, ready], interval: 100ms, retries: 100}\n"
    )
    log = evaluate(checking("cat ready; pwd", "argument hello file\n/srv/work\n", config="compose.yaml"))
    assert log.status == "success", log.error


def test_what_is_expected_to_be_prebuilt_is_not_built(builder: LocalDaytona, base: str) -> None:
    dockerfile(base, "RUN echo built > /built\n")
    task = checking("cat /built", "built\n")
    with pytest.raises(PrerequisiteError, match="there is no snapshot inspect-"):
        evaluate(task, sandbox_prebuilt=True)
    assert (builder.requests("POST", SNAPSHOTS), builder.requests("POST", "/sandbox")) == (0, 0)
    assert evaluate(task).status == "success"
    assert evaluate(task, sandbox_prebuilt=True).status == "success"
    assert builder.requests("POST", SNAPSHOTS) == 1


@pytest.mark.parametrize("display", ["plain", "none"])
def test_uploads_and_builds_are_shown_unless_nothing_is_to_be_shown(
    builder: LocalDaytona, base: str, display: str
) -> None:
    Path("large").write_bytes(b"x" * 20_000_000)
    dockerfile(base, "COPY large /large\n")
    Path("task.py").write_text(
        "from inspect_ai import Task, task\n"
        "from inspect_ai.dataset import Sample\n"
        "@task\n"
        "def short():\n"
        "    return Task(dataset=[Sample(input='go')], sandbox=('daytona', 'Dockerfile'))\n"
    )
    command = [
        sys.executable,
        "-m",
        "inspect_ai",
        "eval",
        "task.py",
        "--model",
        "mockllm/model",
        "--display",
        display,
    ]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    shown = "Uploading the build context: " in run.stdout and "Snapshot inspect-" in run.stdout
    assert shown == (display == "plain"), run.stdout


def test_a_command_that_ends_early_is_reported(
    builder: LocalDaytona, base: str, caplog: pytest.LogCaptureFixture
) -> None:
    dockerfile(base, "RUN true\n")
    Path("compose.yaml").write_text(
        'services:\n  default:\n    build: .\n    command: ["sh", "-c", "echo out of luck; exit 3"]\n'
    )
    with caplog.at_level(logging.WARNING):
        log = evaluate(checking("echo ok", "ok\n", samples=3, config="compose.yaml"))
    assert log.status == "success", log.error
    told = [record.getMessage() for record in caplog.records if "out of luck" in record.getMessage()]
    assert len(told) == 1, caplog.text
    assert "ended with status 3" in told[0]


def test_the_size_of_shared_memory_is_what_the_service_says(builder: LocalDaytona, base: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts of sandboxes need a server that runs as root")
    dockerfile(base, "RUN true\n")
    Path("compose.yaml").write_text("services:\n  default:\n    build: .\n    shm_size: 64m\n")
    log = evaluate(checking("grep -c ' /dev/shm .*size=65536k' /proc/mounts", "1\n", config="compose.yaml"))
    assert log.status == "success", log.error


def test_a_failed_build_of_a_sandbox_fails_the_sample_with_the_builders_words(
    builder: LocalDaytona, base: str
) -> None:
    dockerfile(base, "RUN echo out of $((6 * 7)) cheese; exit 9\n")
    Path("compose.yaml").write_text("services:\n  default:\n    build: .\nx-daytona:\n  prepare: false\n")
    log = evaluate(checking("true", "", config="compose.yaml"))
    assert log.status == "error"
    assert log.error
    assert "out of 42 cheese" in log.error.message
