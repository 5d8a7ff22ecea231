"""What configurations mean: the golden pairs that the Rust tests have, through the package that users have."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.util._sandbox import compose

from inspect_daytona import DaytonaConfig
from inspect_daytona._config import CONFIG_FILES, settings_json
from inspect_daytona._session import _core
from inspect_daytona.errors import DaytonaConfigError
from local_daytona import clean_environment

FIXTURES = Path(__file__).parent.parent / "fixtures" / "config"
CASES = sorted(path.name for path in FIXTURES.iterdir() if path.is_dir())
OUTCOMES = ("plan.json", "error.txt", "build.json")


def request(task: Path, metadata: dict[str, str]) -> str:
    """What Inspect's calls hand to the native module for the configuration of a task's directory."""
    if (task / "model.json").exists():
        model = json.loads((task / "model.json").read_text())
        return json.dumps({"source": {"model": model}, "directory": str(task), "metadata": metadata})
    if (task / "settings.json").exists():
        settings = DaytonaConfig(**json.loads((task / "settings.json").read_text()))
        return settings_json(settings, str(task), metadata)
    found = next((name for name in CONFIG_FILES if (task / name).exists()), None)
    return settings_json(found, str(task), metadata)


def outcome(task: Path) -> dict[str, Any]:
    context = task / "context.json"
    around: dict[str, dict[str, str]] = json.loads(context.read_text()) if context.exists() else {}

    # the recorded outcomes are those of a task in /task, which has / above it
    def recorded(text: str) -> str:
        return text.replace(str(task), "/task").replace(str(task.parent), "/")

    environ = {
        name: value.replace("/task", str(task)) for name, value in around.get("environment", {}).items()
    }
    try:
        shown = _core.explain(request(task, around.get("metadata", {})), environ)
    except DaytonaConfigError as ex:
        return {"error": recorded(str(ex))}
    found: dict[str, Any] = json.loads(recorded(shown))
    return found


# Inspect's models by the names of `inspect-compose-fields.json`, whose keys the Rust tests hold against their tables.
MODELS: dict[str, type[compose.ComposeModel]] = {
    "top": compose.ComposeConfig,
    "service": compose.ComposeService,
    "build": compose.ComposeBuild,
    "healthcheck": compose.ComposeHealthcheck,
    "deploy": compose.ComposeDeploy,
    "resources": compose.ComposeResourceConfig,
    "limits": compose.ComposeResources,
    "reservations": compose.ComposeResourceReservations,
    "device": compose.ComposeDeviceReservation,
    "volume_mount": compose.ComposeVolumeMount,
    "bind_options": compose.ComposeBindOptions,
    "image_options": compose.ComposeImageOptions,
    "tmpfs_options": compose.ComposeTmpfsOptions,
    "volume_options": compose.ComposeVolumeOptions,
}


def test_the_keys_of_inspects_models_are_those_that_were_decided() -> None:
    recorded = json.loads((FIXTURES / "inspect-compose-fields.json").read_text())
    recorded.pop("inspect_ai")
    installed = {
        name: sorted(field.alias or key for key, field in model.model_fields.items())
        for name, model in MODELS.items()
    }
    assert installed == recorded, "decide new keys in src/config/keys.rs, then record them in the fixture"


def test_no_model_of_inspects_is_left_out() -> None:
    assert set(compose.ComposeModel.__subclasses__()) == set(MODELS.values())


def test_there_are_as_many_pairs_as_the_rust_tests_demand() -> None:
    assert len(CASES) >= 60


@pytest.mark.parametrize("case", CASES)
def test_a_configuration_has_its_recorded_outcome(case: str, tmp_path: Path) -> None:
    task = tmp_path / "task"
    shutil.copytree(FIXTURES / case, task, ignore=shutil.ignore_patterns(*OUTCOMES))
    expected: dict[str, Any] = {}
    for key, name in (("plan", "plan.json"), ("build", "build.json")):
        path = FIXTURES / case / name
        if path.exists():
            expected[key] = json.loads(path.read_text())
    if (FIXTURES / case / "error.txt").exists():
        expected = {"error": (FIXTURES / case / "error.txt").read_text().removesuffix("\n")}
    elif "error" in expected.get("build", {}):
        expected = expected["build"]
    assert outcome(task) == expected


def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "inspect_daytona", "config", *arguments],
        cwd=directory,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_shows_the_plan_of_the_file_that_an_eval_would_find(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM not-this\n")
    (tmp_path / "compose.yaml").write_text(
        "services: {box: {image: 'tool:${SAMPLE_METADATA_TAG-none}$SUFFIX'}}"
    )
    done = run(tmp_path, "--metadata", "tag=7", SUFFIX="-slim")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["plan"]["single"]["service"]["image"] == {"image": "tool:7-slim"}
    # a file that is named wins
    done = run(tmp_path, "Dockerfile")
    assert json.loads(done.stdout)["build"]["dockerfile"] == "FROM not-this\n"


def test_the_command_shows_the_default_where_there_is_no_file(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert json.loads(done.stdout)["plan"]["single"]["service"]["image"] == "default"


def test_the_command_names_file_line_and_column_of_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services:\n  box:\n    imagee: a\n")
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "compose.yaml:3:5" in done.stderr
    assert "`image`" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_refuses_metadata_without_a_value(tmp_path: Path) -> None:
    done = run(tmp_path, "--metadata", "tag")
    assert done.returncode == 2
    assert "KEY=VALUE" in done.stderr
