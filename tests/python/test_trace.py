"""`inspect trace` tells what a sandbox is doing, without what commands are told in confidence."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from local_daytona import LocalDaytona, run

PROGRAM = """
import logging, sys
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.solver import solver
from inspect_ai.util import sandbox

if "handler" in sys.argv:
    # what a host may have set up for its own messages
    logging.basicConfig()

@solver
def use():
    async def solve(state, generate):
        await sandbox().exec(["cat", "x" * 5000], input="hunter2", env={"PASSWORD": "hunter3"})
        await sandbox().write_file("file", "hunter4")
        assert await sandbox().read_file("file") == "hunter4"
        return state
    return solve

[log] = eval(Task(dataset=[Sample(input="go")], solver=use(), sandbox="daytona"), model="mockllm/model")
assert log.status == "success", log.error
print([event.message.message for event in log.samples[0].events if event.event == "logger"])
"""


def traced(text: str) -> list[dict[str, Any]]:
    """The actions in a trace file."""
    records = [json.loads(line) for line in text.splitlines()]
    return [record for record in records if str(record.get("action", "")).startswith("Daytona ")]


@pytest.mark.parametrize("handler", [False, True], ids=["Inspect's handler", "a host's handler too"])
def test_every_action_is_traced_at_default_levels_and_shown_nowhere_else(
    daytona: LocalDaytona, tmp_path: Path, handler: bool
) -> None:
    file = tmp_path / "trace.log"
    variables = daytona.environment | {"INSPECT_TRACE_FILE": str(file)}
    done = run("-c", PROGRAM, *(["handler"] if handler else []), variables=variables, directory=tmp_path)
    assert done.returncode == 0, done.stderr
    # Inspect compresses it in the end
    text = gzip.decompress((tmp_path / "trace.log.gz").read_bytes()).decode()
    records = traced(text)
    for event in ("enter", "exit"):
        actions = Counter(
            record["action"].removeprefix("Daytona ") for record in records if record["event"] == event
        )
        once = ("prepare", "create", "write", "read", "delete")
        assert actions.keys() >= {*once, "check", "exec", "finish"}, actions
        assert {actions[action] for action in once} == {1}, actions
    [name] = {record["detail"] for record in records if record["action"] == "Daytona create"}
    for action in ("exec", "write", "read"):
        details = [record["detail"] for record in records if record["action"] == f"Daytona {action}"]
        assert all(detail.startswith(f"{name}: ") and len(detail) < 2000 for detail in details)
    assert "hunter" not in text
    assert done.stdout == "[]\n", "nothing of it is in the sample's transcript"
    assert "Daytona" not in done.stderr
