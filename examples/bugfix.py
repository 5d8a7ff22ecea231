"""An eval whose agent repairs small Python programs in a sandbox, scored by running their tests there.

Run it with `make demo`, or with a model of your own: `inspect eval examples/bugfix.py --model openai/gpt-5`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspect_ai import Task, task
from inspect_ai.agent import react
from inspect_ai.dataset import Sample
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState
from inspect_ai.tool import bash, python, text_editor
from inspect_ai.util import sandbox

# Without bytecode: an edit of the same size within the same second would go unnoticed.
RUN_TESTS = """\
#!/bin/sh
cd "$(dirname "$0")" && PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1 exec python3 -m unittest discover --start-directory tests
"""

# Files arrive without the executable bit. A bug that no test sees would make every agent right.
SETUP = """\
#!/usr/bin/env bash
set -euo pipefail
chmod +x repo/run-tests
if repo/run-tests 2>/dev/null; then
    echo "the tests pass before anything is repaired" >&2
    exit 1
fi
"""

PROMPT = """\
The folder `repo` in your working directory holds the module `{name}` and its tests. A user reports:

{report}

Repair the module, so that `repo/run-tests` passes, and submit a sentence about the cause. Leave the tests as they are.
"""


@dataclass(frozen=True)
class Edit:
    """One replacement in a file of the repository; the text to replace occurs once."""

    old: str
    new: str
    file: str


@dataclass(frozen=True)
class Bug:
    """A program with a bug, and what the scripted agent does about it."""

    name: str
    report: str
    module: str
    tests: str
    edits: tuple[Edit, ...]
    solved: bool

    @property
    def test_file(self) -> str:
        """Where the tests are, from the repository."""
        return f"tests/test_{self.name}.py"


def load_bugs() -> dict[str, Bug]:
    """The bugs of `bugs/*.toml`, by name."""
    paths = sorted((Path(__file__).parent / "bugs").glob("*.toml"))
    return {path.stem: _bug(path.stem, tomllib.loads(path.read_text(encoding="utf-8"))) for path in paths}


def _bug(name: str, data: dict[str, Any]) -> Bug:
    return Bug(
        name=name,
        report=data["report"],
        module=data["module"].lstrip(),
        tests=data["tests"].lstrip(),
        edits=tuple(Edit(edit["old"], edit["new"], edit.get("file", f"{name}.py")) for edit in data["edits"]),
        solved=data.get("solved", True),
    )


@task
def bugfix() -> Task:
    """Repair one bug per sample."""
    return Task(
        dataset=[_sample(bug) for bug in load_bugs().values()],
        solver=react(tools=[bash(timeout=60), python(timeout=60), text_editor()]),
        scorer=tests_pass(),
        sandbox="daytona",
        message_limit=60,
    )


def _sample(bug: Bug) -> Sample:
    return Sample(
        id=bug.name,
        input=PROMPT.format(name=bug.name, report=bug.report),
        target="the tests pass",
        files={
            f"repo/{bug.name}.py": bug.module,
            f"repo/{bug.test_file}": bug.tests,
            "repo/run-tests": RUN_TESTS,
        },
        setup=SETUP,
        metadata={"tests": bug.tests, "test_file": bug.test_file},
    )


@scorer(metrics=[accuracy(), stderr()])
def tests_pass() -> Scorer:
    """Runs the tests in the agent's sandbox, as they were before the agent could change them."""

    async def score(state: TaskState, target: Target) -> Score:
        await sandbox().write_file(f"repo/{state.metadata['test_file']}", state.metadata["tests"])
        await sandbox().write_file("repo/run-tests", RUN_TESTS)
        result = await sandbox().exec(["sh", "repo/run-tests"], timeout=60)
        return Score(
            value=CORRECT if result.success else INCORRECT,
            answer=state.output.completion,
            explanation=result.stderr,
        )

    return score
