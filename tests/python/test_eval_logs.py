"""What an eval log keeps of a configuration, so that the eval can be tried again from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import inspect_ai
import pytest
from inspect_ai.util import SandboxEnvironmentSpec

from inspect_daytona import DaytonaConfig
from inspect_daytona._config import settings_json
from local_daytona import LocalDaytona
from tool_calls import scripted

TASK = """
from pathlib import Path
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.solver import solver
from inspect_ai.util import SandboxEnvironmentSpec, sandbox
from inspect_daytona import DaytonaConfig

@solver
def fails_at_first():
    async def solve(state, generate):
        await sandbox().exec(["true"])
        if not Path("{directory}/tried").exists():
            Path("{directory}/tried").touch()
            raise RuntimeError("deliberate")
        return state
    return solve

@task
def tried_again():
    config = DaytonaConfig(**{settings})
    sandbox = SandboxEnvironmentSpec("daytona", config)
    return Task(dataset=[Sample(id="one", input="go")], solver=fails_at_first(), sandbox=sandbox)
"""
SETTINGS = pytest.mark.parametrize(
    "settings",
    [{}, {"snapshot": None}, {"ttl_minutes": 30, "snapshot": None}],
    ids=["empty", "only None", "one setting"],
)


@SETTINGS
def test_a_configuration_is_the_same_after_a_log(settings: dict[str, Any]) -> None:
    spec = SandboxEnvironmentSpec("daytona", DaytonaConfig(**settings))
    text = spec.model_dump_json(exclude_none=True)
    read = SandboxEnvironmentSpec.model_validate_json(text)
    assert isinstance(read.config, DaytonaConfig)
    assert {spec, read}, "Inspect keeps them in sets"
    assert settings_json(read.config, "/") == settings_json(spec.config, "/")
    assert SandboxEnvironmentSpec.model_validate_json(read.model_dump_json(exclude_none=True)) == read


@SETTINGS
def test_an_eval_is_tried_again_from_its_log(
    daytona: LocalDaytona, empty_directory: Path, settings: dict[str, Any]
) -> None:
    text = TASK.format(directory=empty_directory, settings=settings)
    (empty_directory / "task.py").write_text(text)
    logs = str(empty_directory / "logs")
    [failed] = inspect_ai.eval("task.py", model=scripted(), log_dir=logs)
    assert failed.status == "error"
    assert failed.error
    assert "deliberate" in failed.error.message
    [log] = inspect_ai.eval_retry(failed.location, log_dir=logs)
    assert log.status == "success", log.error and log.error.message
