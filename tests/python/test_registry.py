"""What happens when Inspect looks for providers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.util._sandbox.registry import registry_find_sandboxenv

from local_daytona import clean_environment


def run_python(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    """Runs code in a fresh interpreter."""
    environment = clean_environment(PYTHONPATH=":".join(map(str, paths)))
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=True
    )


def test_inspect_finds_the_provider_by_its_entry_point() -> None:
    code = (
        "from inspect_ai.util._sandbox.registry import registry_find_sandboxenv as find\n"
        "print(find('daytona').__module__)"
    )
    assert run_python(code).stdout == "inspect_daytona._environment\n"


def test_the_registry_loads_no_native_module_and_nothing_that_inspect_did_not_load() -> None:
    code = (
        "import json, sys\n"
        "import inspect_ai, inspect_ai.util\n"
        "before = set(sys.modules)\n"
        "import inspect_daytona._registry\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    loaded: list[str] = json.loads(run_python(code).stdout)
    assert "inspect_daytona._registry" in loaded
    assert "inspect_daytona._core" not in loaded
    assert [module for module in loaded if not module.startswith("inspect_daytona")] == []


def test_importing_the_package_loads_neither_inspect_nor_the_native_module() -> None:
    code = "import sys, inspect_daytona\nprint([m for m in sys.modules if m.startswith('inspect_')])"
    assert run_python(code).stdout == "['inspect_daytona']\n"


def test_the_public_names_are_there() -> None:
    import inspect_daytona

    for name in inspect_daytona.__all__:
        assert getattr(inspect_daytona, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(inspect_daytona, "nothing")  # noqa: B009 - mypy knows that it is not there


def test_a_broken_native_module_is_one_clear_sentence_when_a_task_starts() -> None:
    code = (
        "import anyio, sys\n"
        "sys.modules['inspect_daytona._core'] = None\n"
        "from inspect_daytona import DaytonaSandboxEnvironment as Provider\n"
        "try:\n"
        "    anyio.run(Provider.task_init, 'startup', None)\n"
        "except Exception as ex:\n"
        "    print(type(ex).__name__, ex)"
    )
    said = run_python(code).stdout
    assert said.startswith(PrerequisiteError.__name__)
    assert "native module of inspect-daytona cannot be loaded" in said
    assert "pip install" in said


def test_a_second_package_of_the_same_name_is_a_warning_that_says_which_one_is_used(tmp_path: Path) -> None:
    package = tmp_path / "other_sandboxes"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from inspect_ai.util import SandboxEnvironment, sandboxenv\n"
        "@sandboxenv(name='daytona')\n"
        "class Other(SandboxEnvironment):\n"
        "    pass\n"
    )
    metadata = tmp_path / "other_sandboxes-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: other-sandboxes\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[inspect_ai]\nother_sandboxes = other_sandboxes\n")
    code = (
        "import anyio, logging\n"
        "logging.basicConfig(format='%(levelname)s %(message)s')\n"
        "from inspect_ai._util.entrypoints import ensure_entry_points\n"
        "ensure_entry_points()\n"
        "from inspect_ai.util._sandbox.registry import registry_find_sandboxenv as find\n"
        "active = find('daytona').__module__.partition('.')[0]\n"
        "from inspect_daytona import DaytonaSandboxEnvironment as Provider\n"
        "from inspect_daytona._environment import warn_of_other_providers\n"
        "warn_of_other_providers()\n"
        "print(active)"
    )
    done = run_python(code, tmp_path)
    warnings = [line for line in done.stderr.splitlines() if line.startswith("WARNING") and "daytona" in line]
    assert len(warnings) == 1, done.stderr
    assert "other_sandboxes" in warnings[0]
    assert f"uses the one of {done.stdout.strip()}" in warnings[0]


def test_alone_there_is_no_warning() -> None:
    code = (
        "import logging\n"
        "logging.basicConfig(format='%(levelname)s %(message)s')\n"
        "import inspect_daytona._registry"
    )
    assert run_python(code).stderr == ""


def test_the_provider_fits_what_inspect_asks_for() -> None:
    import inspect

    provider = registry_find_sandboxenv("daytona")
    # with any other number of parameters Inspect silently leaves `concurrency` away
    bound = [name for name in inspect.signature(getattr(provider, "exec")).parameters if name != "self"]  # noqa: B009
    assert bound == ["cmd", "input", "cwd", "env", "user", "timeout", "timeout_retry", "concurrency"]
