"""Ctrl-C at every stage of an eval, once and twice: no sandbox is left when the process has ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local_daytona import LIMIT_SECONDS, LocalDaytona, clean_environment, command_lines, wait_until

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
    samples = [Sample(id=n, input="go", files={"a": "a" * 100, "b": "b"}) for n in range(3)]
    inspect_ai.eval(Task(dataset=samples, solver=work(), sandbox="daytona"), model="mockllm/model", display="none")
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
    script = tmp_path / "evaluate.py"
    script.write_text(EVAL)
    log = (tmp_path / "output").open("w+")
    with (
        log,
        subprocess.Popen(
            [sys.executable, str(script), command],
            cwd=tmp_path,
            env=clean_environment(**daytona.environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            wait_until(
                lambda: begun(daytona, stage, method, route) or process.poll() is not None, f"{stage} begins"
            )
            assert process.poll() is None, output(tmp_path)
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
    assert daytona.names() == [], output(tmp_path)


def begun(daytona: LocalDaytona, stage: str, method: str, route: str) -> bool:
    """Whether a stage is under way; commands also run before the solver's, so those are looked for by name."""
    if stage != "exec":
        return daytona.requests(method, route) > 0
    return ["sleep", "600"] in command_lines()


def output(folder: Path) -> str:
    """What the eval printed."""
    return (folder / "output").read_text()
