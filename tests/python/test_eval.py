"""Evals from end to end: Inspect's tools, its injected tools, files, setup, failures and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import inspect_ai
import pytest
from inspect_ai import Task
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog
from inspect_ai.solver import TaskState
from inspect_ai.tool import bash, bash_session, python, text_editor
from inspect_ai.util import ExecCompleted, ExecStderr, ExecStdout, SandboxEnvironmentSpec, sandbox

from inspect_daytona import DaytonaSandboxEnvironment
from local_daytona import LocalDaytona
from tool_calls import evaluate, python_solver, results, scripted, with_tools

pytestmark = pytest.mark.usefixtures("daytona", "empty_directory")


def test_bash_and_python_run_as_the_default_user_in_its_home() -> None:
    calls = scripted(
        ("bash", {"command": "id -un; pwd; echo $HOME; sudo -n id -un"}),
        ("python", {"code": "import os\nprint(os.getcwd())"}),
    )
    shell, program = results(evaluate(with_tools(bash(), python()), calls))
    assert shell == "daytona\n/home/daytona\n/home/daytona\nroot\n"
    assert program == "/home/daytona\n"


def test_the_text_editor_creates_views_replaces_inserts_and_undoes() -> None:
    path = "/home/daytona/notes.txt"
    calls = scripted(
        ("text_editor", {"command": "create", "path": path, "file_text": "one\ntwo\n"}),
        ("text_editor", {"command": "str_replace", "path": path, "old_str": "two", "new_str": "zwei ☕"}),
        ("text_editor", {"command": "insert", "path": path, "insert_line": 1, "new_str": "between"}),
        ("bash", {"command": f"cat {path}; stat -c %U {path}"}),
        ("text_editor", {"command": "undo_edit", "path": path}),
        ("text_editor", {"command": "view", "path": path}),
    )
    answers = results(evaluate(with_tools(text_editor(), bash()), calls))
    assert answers[3] == "one\nbetween\nzwei ☕\ndaytona\n"
    assert "zwei ☕" in answers[5]
    assert "between" not in answers[5]


def test_a_bash_session_keeps_its_state_between_calls() -> None:
    calls = scripted(
        ("bash_session", {"action": "type_submit", "input": "cd /tmp && KEPT=sake"}),
        ("bash_session", {"action": "type_submit", "input": "echo for-$KEPT in $PWD"}),
    )
    answers = results(evaluate(with_tools(bash_session()), calls))
    assert "for-sake in /tmp" in answers[1]


def test_a_bash_session_can_be_interrupted() -> None:
    calls = scripted(
        ("bash_session", {"action": "type_submit", "input": "echo begun; sleep 600; echo not-$((40 + 2))"}),
        ("bash_session", {"action": "interrupt"}),
        ("bash_session", {"action": "type_submit", "input": "echo after-$((40 + 2))"}),
    )
    answers = results(evaluate(with_tools(bash_session(wait_for_output=5)), calls))
    assert "begun" in answers[0]
    assert "after-42" in answers[2]
    assert "not-42" not in "".join(answers)


def test_exec_remote_streams_output_and_status() -> None:
    seen: dict[str, Any] = {"out": "", "err": ""}

    async def action(state: TaskState) -> None:
        process = await sandbox().exec_remote(
            ["sh", "-c", "echo out; echo err >&2; sleep 1; echo more; exit 3"]
        )
        async for event in process:
            match event:
                case ExecStdout(data=data):
                    seen["out"] += data
                case ExecStderr(data=data):
                    seen["err"] += data
                case ExecCompleted(exit_code=code):
                    seen["code"] = code

    log = evaluate(one(action))
    assert log.status == "success", log.error and log.error.message
    assert seen == {"out": "out\nmore\n", "err": "err\n", "code": 3}


def test_exec_remote_is_awaited_and_killed() -> None:
    seen: dict[str, Any] = {}

    async def action(state: TaskState) -> None:
        result = await sandbox().exec_remote(["sh", "-c", "echo done; exit 4"], stream=False)
        seen["awaited"] = (result.returncode, result.stdout)
        process = await sandbox().exec_remote(["sleep", "4567"])
        seen["before"] = (await sandbox().exec(["pgrep", "-cf", "^sleep 4567"])).stdout
        await process.kill()
        seen["after"] = (await sandbox().exec(["pgrep", "-cf", "^sleep 4567"])).stdout

    log = evaluate(one(action))
    assert log.status == "success", log.error and log.error.message
    assert seen == {"awaited": (4, "done\n"), "before": "1\n", "after": "0\n"}


def test_files_and_setup_are_there_before_the_solver(empty_directory: Path) -> None:
    (empty_directory / "given.bin").write_bytes(b"\x00\xff\r\n")
    sample = Sample(
        id="one",
        input="go",
        files={"data/given.bin": "given.bin", "text.txt": "grüße\n"},
        setup="#!/usr/bin/env bash\nset -e\ncat text.txt > data/by-setup\nid -un >> data/by-setup\n",
    )
    seen: dict[str, Any] = {}

    async def action(state: TaskState) -> None:
        seen["bytes"] = await sandbox().read_file("data/given.bin", text=False)
        seen["setup"] = await sandbox().read_file("data/by-setup")

    log = evaluate(one(action, sample))
    assert log.status == "success", log.error and log.error.message
    assert seen == {"bytes": b"\x00\xff\r\n", "setup": "grüße\ndaytona\n"}


def test_a_failing_setup_fails_the_sample_with_its_output_and_leaves_nothing(daytona: LocalDaytona) -> None:
    log = evaluate(one(nothing, Sample(id="one", input="go", setup="echo no coffee >&2; exit 3")))
    assert log.status == "error"
    assert log.samples
    assert log.samples[0].error is not None
    assert "no coffee" in log.samples[0].error.message
    assert daytona.names() == []


def test_a_failing_solver_leaves_nothing(daytona: LocalDaytona) -> None:
    async def action(state: TaskState) -> None:
        assert len(daytona.names()) == 1
        raise RuntimeError("deliberate")

    log = evaluate(one(action))
    assert log.status == "error"
    assert log.error is not None
    assert "deliberate" in log.error.message
    assert daytona.names() == []


def test_a_time_limit_ends_a_command_and_the_sandbox(daytona: LocalDaytona) -> None:
    async def action(state: TaskState) -> None:
        await sandbox().exec(["sleep", "600"])

    log = evaluate(one(action), time_limit=3)
    assert log.samples
    assert log.samples[0].limit is not None
    assert log.samples[0].limit.type == "time"
    assert daytona.names() == []


def test_names_and_labels_tell_where_a_sandbox_is_from(daytona: LocalDaytona) -> None:
    found: list[dict[str, Any]] = []

    async def action(state: TaskState) -> None:
        assert isinstance(sandbox().as_type(DaytonaSandboxEnvironment), DaytonaSandboxEnvironment)
        if not found:
            found.extend(daytona.sandboxes())

    samples = [Sample(id=f"Sample {number}!", input="go") for number in range(2)]
    task = Task(name="my_eval", dataset=samples, solver=python_solver(action), sandbox="daytona")
    assert evaluate(task).status == "success"
    assert found
    for box in found:
        assert box["name"].startswith("inspect-my_eval-Sample-")
        assert box["labels"]["created_by"] == "inspect-ai"
        assert box["labels"]["inspect_run_id"] == found[0]["labels"]["inspect_run_id"]


def test_two_tasks_share_one_eval_and_the_next_eval_begins_anew(daytona: LocalDaytona) -> None:
    runs: list[str] = []

    async def action(state: TaskState) -> None:
        runs.append(daytona.sandboxes()[0]["labels"]["inspect_run_id"])

    tasks = [
        Task(name=name, dataset=[Sample(input="go")], solver=python_solver(action), sandbox="daytona")
        for name in ("first", "second")
    ]
    logs = inspect_ai.eval(tasks, model=scripted(), max_tasks=2)
    assert [log.status for log in logs] == ["success", "success"]
    assert len(set(runs)) == 1
    assert evaluate(one(action)).status == "success"
    assert len(set(runs)) == 2


def test_many_samples_at_once_leave_nothing(daytona: LocalDaytona) -> None:
    async def action(state: TaskState) -> None:
        await sandbox().write_file("who", str(state.sample_id))
        result = await sandbox().exec(["cat", "who"])
        assert result.stdout == str(state.sample_id)

    samples = [Sample(id=number, input="go") for number in range(24)]
    task = Task(dataset=samples, solver=python_solver(action), sandbox="daytona")
    log = evaluate(task, max_samples=24)
    assert log.status == "success", log.error and log.error.message
    assert daytona.requests("POST", "/api/sandbox") >= 24
    assert daytona.names() == []


def test_without_cleanup_a_sandbox_is_kept_and_named(
    daytona: LocalDaytona, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # wide, so that nothing is folded
    monkeypatch.setenv("COLUMNS", "250")
    assert evaluate(one(nothing), sandbox_cleanup=False).status == "success"
    [kept] = daytona.sandboxes()
    said = "".join(capfd.readouterr())
    daytona.delete_all()
    assert f"inspect sandbox cleanup daytona {kept['id']}" in said
    assert kept["name"] in said


def refusal(directory: Path, file: str, text: str) -> str:
    """The message that an eval with this configuration ends with before its first sample."""
    (directory / "Dockerfile").write_text("FROM registry.invalid/no-such-image:1\n")
    (directory / file).write_text(text)
    task = one(nothing)
    task.sandbox = SandboxEnvironmentSpec("daytona", str(directory / file))
    with pytest.raises(PrerequisiteError) as raised:
        evaluate(task)
    return str(raised.value.message)


def test_a_class_that_the_server_has_not_is_refused_before_any_sandbox_is_created(
    daytona: LocalDaytona, empty_directory: Path
) -> None:
    service = "services:\n  a:\n    image: a:1\nx-daytona:\n  class: linux-vm\n"
    message = refusal(empty_directory, "compose.yaml", service)
    assert "sandbox class linux-vm" in message
    assert "local Daytona has containers only" in message
    assert daytona.requests("POST", "/api/sandbox") == 0


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("Dockerfile", "FROM registry.invalid/no-such-image:1\n"),
        ("compose.yaml", "services:\n  a:\n    build: .\n"),
    ],
    ids=["dockerfile", "build"],
)
def test_an_image_that_cannot_be_built_ends_the_eval_before_any_sandbox_is_created(
    daytona: LocalDaytona, empty_directory: Path, file: str, text: str
) -> None:
    assert "could not be built" in refusal(empty_directory, file, text)
    assert daytona.requests("POST", "/api/sandbox") == 0


def test_the_example_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    readme = Path(__file__).parents[2] / "README.md"
    code = readme.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    logs: list[EvalLog] = []
    uname = scripted(("bash", {"command": "uname -s; cat notes.txt"}), last="It is Linux.")
    monkeypatch.setattr(inspect_ai, "eval", lambda task, model: logs.append(evaluate(task, uname)))
    exec(code, {})  # noqa: S102 - our own
    assert results(logs[0]) == ["Linux\nhello"]
    assert logs[0].results is not None
    assert logs[0].results.scores[0].metrics["accuracy"].value == 1


async def nothing(state: TaskState) -> None:
    """Does nothing."""


def one(action: Any, sample: Sample | None = None) -> Task:
    """A task with one sample, solved by `action`."""
    return Task(
        name="one",
        dataset=[sample or Sample(id="one", input="go")],
        solver=python_solver(action),
        sandbox="daytona",
    )
