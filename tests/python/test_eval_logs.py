"""What an eval log keeps of a configuration, so that the eval can be tried again from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import inspect_ai
import pytest
from inspect_ai.util import ComposeConfig, SandboxEnvironmentSpec

from inspect_daytona import DaytonaConfig
from inspect_daytona._config import settings_json
from inspect_daytona._session import _core
from local_daytona import LocalDaytona, serve
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
IMAGE = "python:3.12"
MODELS: dict[str, dict[str, Any]] = {
    "one service": {
        "services": {
            "default": {
                "image": IMAGE,
                "environment": {"WORD": "hello", "UNSET": None},
                "working_dir": "/srv",
                "volumes": ["data:/srv/data"],
                "healthcheck": {"test": ["CMD", "true"], "retries": 2},
                "x-default": True,
            }
        },
        "volumes": {"data": None},
        "x-daytona": {"ttl_minutes": 30, "labels": {"a": "b"}, "snapshot": None},
    },
    "several services": {
        "services": {
            "first": {"image": IMAGE, "mem_limit": "1g", "networks": ["lan"]},
            "second": {
                "image": IMAGE,
                "x-default": True,
                "deploy": {"resources": {"limits": {"cpus": "0.5", "memory": "1g"}}},
                "volumes": [{"type": "tmpfs", "target": "/t", "tmpfs": {"mode": 0o1777, "size": "1m"}}],
                "ulimits": {"nofile": {"soft": 10, "hard": 20}},
            },
        },
        "networks": {"lan": {"internal": True}},
    },
}
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


@pytest.mark.parametrize("name", MODELS)
def test_a_compose_model_means_the_same_after_a_log(name: str, empty_directory: Path) -> None:
    spec = SandboxEnvironmentSpec("daytona", ComposeConfig.model_validate(MODELS[name]))
    read = SandboxEnvironmentSpec.model_validate_json(spec.model_dump_json(exclude_none=True))
    assert isinstance(read.config, ComposeConfig)

    def plan(config: ComposeConfig) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(_core.explain(settings_json(config, str(empty_directory)), {}))
        return found

    before = plan(spec.config)
    assert plan(read.config) == before
    if name == "several services":
        assert before["plan"]["multi"]["default"] == "second"


def test_an_eval_with_a_compose_model_is_tried_again_from_its_log(
    empty_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        TASK.format(directory=empty_directory, settings={})
        .replace("DaytonaConfig(**{})", f"ComposeConfig.model_validate({MODELS['one service']})")
        .replace("import SandboxEnvironmentSpec", "import ComposeConfig, SandboxEnvironmentSpec")
        .replace(
            'await sandbox().exec(["true"])',
            'said = await sandbox().exec(["sh", "-ec", "ls -d data; echo $WORD $PWD"])\n'
            '        assert said.stdout == "data\\nhello /srv\\n", said',
        )
    )
    assert "ComposeConfig.model_validate" in text
    assert "said.stdout" in text
    (empty_directory / "task.py").write_text(text)
    logs = str(empty_directory / "logs")
    with serve(IMAGES=f"{IMAGE}=host") as running:
        running.connect(monkeypatch)
        [failed] = inspect_ai.eval("task.py", model=scripted(), log_dir=logs)
        assert failed.error
        assert "deliberate" in failed.error.message
        [log] = inspect_ai.eval_retry(failed.location, log_dir=logs)
        assert log.status == "success", log.error and log.error.message
