"""Ctrl-C at every stage of an eval, once and twice: no sandbox is left when the process has ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import compose_project
from exchange import missing
from local_daytona import LIMIT_SECONDS, LocalDaytona, clean_environment, command_lines, serve, wait_until

EVAL = """\
import os, sys
import inspect_ai
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.solver import solver
from inspect_ai.util import sandbox

@solver
def work():
    async def solve(state, generate):
        await sandbox().exec(["sh", "-c", sys.argv[1]])
        return state
    return solve

if __name__ == "__main__":
    spec, count = (("daytona", sys.argv[2]), 1) if sys.argv[2:] else ("daytona", 3)
    samples = [Sample(id=n, input="go", files={"a": "a" * 100, "b": "b"}) for n in range(count)]
    task = Task(dataset=samples, solver=work(), sandbox=spec)
    inspect_ai.eval(task, model="mockllm/model", display="none")
"""

# stage: (method and part of the route that mark its beginning, how long the server then dawdles, the samples' command)
STAGES = {
    "init": ("POST", "/api/sandbox", 3000, "true"),
    "files": ("POST", "/files/bulk-upload", 3000, "true"),
    "exec": ("POST", "/process/execute", 0, "sleep 600"),
    "cleanup": ("DELETE", "/api/sandbox", 3000, "true"),
}


@pytest.mark.parametrize("presses", [1, 2], ids=["once", "twice"])
@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_leaves_no_sandbox(daytona: LocalDaytona, tmp_path: Path, stage: str, presses: int) -> None:
    method, route, milliseconds, command = STAGES[stage]
    if milliseconds:
        path = {"init": "/api/sandbox", "files": "/toolbox/*/files/bulk-upload", "cleanup": "/api/sandbox/*"}[
            stage
        ]
        daytona.fault(method, path, "none", delayMilliseconds=milliseconds)

    def has_begun() -> bool:
        return begun(daytona, stage, method, route)

    interrupt(daytona, tmp_path, [command], stage, has_begun=has_begun, presses=presses)


COMPOSE = """\
services:
  default:
    build: image
    command: sleep infinity
    depends_on: {web: {condition: service_healthy}}
  web:
    build:
      context: image
      dockerfile_inline: |
        FROM scratch
        COPY busybox /bin/busybox
        RUN ["/bin/busybox", "sleep", "BUILD"]
    command: /bin/busybox sleep 612
    healthcheck: {test: [CMD, /bin/busybox, sleep, "CHECK"], interval: 1s, timeout: 700s}
"""
# stage: the command line that marks its beginning, how long the build and the healthcheck sleep
SERVICES = {
    "snapshot": (None, 0, 0),
    "engine": (["dockerd", "--host=unix:///var/run/docker.sock"], 0, 0),
    "build": (["/bin/busybox", "sleep", "611"], 611, 0),
    "up": (["/bin/busybox", "sleep", "612"], 0, 613),
    "exec": (["sleep", "600"], 0, 0),
}


@pytest.mark.skipif(missing() is not None, reason=missing() or "")
@pytest.mark.parametrize(("stage", "presses"), [*((stage, 1) for stage in SERVICES), ("build", 2)])
def test_ctrl_c_leaves_no_machine_of_services(tmp_path: Path, stage: str, presses: int) -> None:
    words, build, check = SERVICES[stage]
    compose_project.busybox_image(tmp_path / "image")
    text = COMPOSE.replace("BUILD", str(build)).replace("CHECK", str(check))
    (tmp_path / "compose.yaml").write_text(text)
    # a server of its own, which has not made the snapshot yet
    with serve(DOCKER="off") as daytona:
        if words is None:
            daytona.fault("POST", "/api/snapshots", "none", delayMilliseconds=3000)

        def has_begun() -> bool:
            if words is None:
                return daytona.requests("POST", "/api/snapshots") > 0
            return words in command_lines()

        arguments = ["sleep 600", str(tmp_path / "compose.yaml")]
        interrupt(daytona, tmp_path, arguments, stage, has_begun=has_begun, presses=presses)


def interrupt(
    daytona: LocalDaytona,
    folder: Path,
    arguments: list[str],
    stage: str,
    *,
    has_begun: Callable[[], bool],
    presses: int,
) -> None:
    """Runs an eval, presses Ctrl-C as soon as a stage of it has begun, and sees that no sandbox is left."""
    script = folder / "evaluate.py"
    script.write_text(EVAL)
    log = (folder / "output").open("w+")
    with (
        log,
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            cwd=folder,
            env=clean_environment(**daytona.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            wait_until(lambda: has_begun() or process.poll() is not None, f"{stage} begins")
            assert process.poll() is None, output(folder)
            process.send_signal(signal.SIGINT)
            if presses == 2:
                # the second one is to hit the cleanup that the first one began
                wait_until(
                    lambda: process.poll() is not None or daytona.requests("DELETE", "/api/sandbox") > 0,
                    "the cleanup begins",
                )
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
            process.wait(LIMIT_SECONDS)
        finally:
            process.kill()
    assert daytona.names() == [], output(folder)


def begun(daytona: LocalDaytona, stage: str, method: str, route: str) -> bool:
    """Whether a stage is under way; commands also run before the solver's, so those are looked for by name."""
    if stage != "exec":
        return daytona.requests(method, route) > 0
    return ["sleep", "600"] in command_lines()


def output(folder: Path) -> str:
    """What the eval printed."""
    return (folder / "output").read_text()
