"""An eval whose sandbox is a compose file of three services: who reaches whom, and Inspect's tools inside of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.event import InfoEvent
from inspect_ai.scorer import CORRECT, INCORRECT, Score, Scorer, Target, accuracy, scorer
from inspect_ai.solver import TaskState, generate, use_tools
from inspect_ai.tool import bash, bash_session, text_editor
from inspect_ai.util import SandboxEnvironmentSpec, sandbox

import compose_project
from exchange import BUSYBOX, missing
from local_daytona import LocalDaytona, serve
from tool_calls import evaluate, python_solver, results, scripted

REASON = missing()
pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
    pytest.mark.usefixtures("daytona", "empty_directory"),
]

COMPOSE = """\
services:
  default:
    build: debian
    image: debian-of-this-machine
    user: agent
    command: sleep infinity
    networks: [front]
    depends_on:
      web: {condition: service_healthy}
  web:
    image: debian-of-this-machine
    pull_policy: never
    command: sh -c 'sleep 1; exec busybox httpd -f -p 80 -h /page'
    volumes: ["./page:/page:ro"]
    networks: [front, back]
    healthcheck:
      test: [CMD, fetch, localhost]
      interval: 500ms
      retries: 60
  store:
    build: busybox
    command: httpd -f -p 80 -h /secret
    volumes: ["./secret:/secret:ro"]
    networks: [back]
networks:
  front: {}
  back: {internal: true}
"""
# Without a program for it: a static busybox resolves no names beside the libraries of another build.
FETCH = """\
#!/bin/bash
exec 3<>"/dev/tcp/$1/80" || exit 1
printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' >&3
sed '1,/^\\r$/d' <&3
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compose file, with all that it names beside it."""
    directory = tmp_path_factory.mktemp("three_services")
    compose_project.debian_image(directory / "debian")
    with (directory / "debian/Dockerfile").open("a") as dockerfile:
        dockerfile.write("COPY busybox fetch /usr/local/bin/\n")
    shutil.copy(BUSYBOX, directory / "debian/busybox")
    (directory / "debian/fetch").write_text(FETCH)
    (directory / "debian/fetch").chmod(0o755)
    compose_project.busybox_image(directory / "busybox")
    for name, text in {"page": "the page", "secret": "the secret"}.items():
        (directory / name).mkdir()
        (directory / name / "index.html").write_text(f"{text}\n")
    (directory / "compose.yaml").write_text(COMPOSE)
    return directory


@pytest.fixture(autouse=True)
def nothing_is_left(daytona: LocalDaytona) -> Iterator[None]:
    yield
    assert daytona.names() == []


def in_services(project: Path, *solvers: Any, **options: Any) -> Task:
    """A task with one sample whose sandboxes are the project's services."""
    return Task(
        dataset=[Sample(id="one", input="go", **options.pop("sample", {}))],
        solver=list(solvers),
        sandbox=SandboxEnvironmentSpec("daytona", str(project / "compose.yaml")),
        **options,
    )


def test_the_agent_reaches_the_web_service_and_not_the_store(project: Path) -> None:
    calls = scripted(
        ("bash", {"command": "id -un; pwd; fetch web"}),
        ("bash", {"command": "timeout 5 fetch store 2>&1; echo status $?"}),
        ("bash", {"command": "timeout 5 fetch $(cat store-address) 2>&1; echo status $?"}),
    )

    async def give_the_address(state: TaskState) -> None:
        # a name that the agent cannot resolve would prove nothing about the network
        address = await sandbox("store").exec(["hostname", "-i"])
        await sandbox().write_file("store-address", address.stdout.strip())

    task = in_services(project, python_solver(give_the_address), use_tools(bash()), generate())
    page, by_name, by_address = results(evaluate(task, calls))
    assert page == "agent\n/home/agent\nthe page\n"
    for answer in (by_name, by_address):
        assert "the secret" not in answer
        assert "status 0" not in answer
    assert "name resolution" in by_name or "not known" in by_name


def test_the_internal_network_ends_at_its_services(project: Path) -> None:
    seen: dict[str, str] = {}

    async def action(state: TaskState) -> None:
        async def said(service: str, script: str) -> str:
            result = await sandbox(service).exec(["sh", "-c", f"{script} 2>&1; echo status $?"], timeout=30)
            return result.stdout

        seen["web to store"] = await said("web", "fetch store")
        seen["store to web"] = await said("store", "timeout 5 wget -q -O - http://web/")
        # only `web` is on both networks, so what lies beyond the internal one is there and answers
        beyond = (await sandbox("default").exec(["busybox", "hostname", "-i"])).stdout.strip()
        seen["web to default"] = await said("web", f"busybox ping -c 1 -W 5 {beyond}")
        seen["store to default"] = await said("store", f"ping -c 1 -W 2 {beyond}")

    log = evaluate(in_services(project, python_solver(action)))
    assert log.status == "success", log.error and log.error.message
    assert seen["web to store"] == "the secret\nstatus 0\n"
    assert seen["store to web"] == "the page\nstatus 0\n"
    assert seen["web to default"].endswith("status 0\n")
    assert seen["store to default"].endswith("100% packet loss\nstatus 1\n")


@scorer(metrics=[accuracy()])
def page_is(expected: str) -> Scorer:
    """Whether the web service's page, as that service has it and as the agent gets it, is this one."""

    async def score(state: TaskState, target: Target) -> Score:
        stored = await sandbox("web").read_file("/tmp/noted")  # noqa: S108 - of the container
        served = await sandbox().exec(["fetch", "web"])
        right = stored == served.stdout == expected
        return Score(value=CORRECT if right else INCORRECT, answer=stored, explanation=served.stderr)

    return score


def test_solver_and_scorer_reach_each_service_by_name(project: Path) -> None:
    async def action(state: TaskState) -> None:
        page = await sandbox("web").exec(["cat", "/page/index.html"])
        await sandbox("web").write_file("/tmp/noted", page.stdout)  # noqa: S108 - of the container
        with pytest.raises(ValueError, match="elsewhere"):
            sandbox("elsewhere")

    log = evaluate(in_services(project, python_solver(action), scorer=page_is("the page\n")))
    assert log.status == "success", log.error and log.error.message
    assert log.results is not None
    assert log.results.scores[0].metrics["accuracy"].value == 1


def test_files_and_setup_are_for_the_services_that_they_name(project: Path) -> None:
    seen: dict[str, str] = {}

    async def action(state: TaskState) -> None:
        seen["default"] = await sandbox().read_file("given")
        seen["store"] = await sandbox("store").read_file("/tmp/given")  # noqa: S108 - of the container
        seen["setup"] = await sandbox().read_file("by-setup")

    sample = {
        "files": {"given": "for the agent", "store:/tmp/given": "for the store"},
        "setup": "#!/bin/bash\nid -un >by-setup\n",
    }
    log = evaluate(in_services(project, python_solver(action), sample=sample))
    assert log.status == "success", log.error and log.error.message
    assert seen == {"default": "for the agent", "store": "for the store", "setup": "agent\n"}


def test_the_text_editor_works_in_a_service(project: Path) -> None:
    path = "/home/agent/notes.txt"
    calls = scripted(
        ("text_editor", {"command": "create", "path": path, "file_text": "one\ntwo\n"}),
        ("text_editor", {"command": "str_replace", "path": path, "old_str": "two", "new_str": "zwei ☕"}),
        ("bash", {"command": f"cat {path}; stat -c %U {path}"}),
        ("text_editor", {"command": "undo_edit", "path": path}),
        ("text_editor", {"command": "view", "path": path}),
    )
    answers = results(evaluate(in_services(project, use_tools(text_editor(), bash()), generate()), calls))
    assert answers[2].startswith("one\nzwei ☕\nagent\n")
    assert "two" in answers[4]
    assert "zwei" not in answers[4]


def test_a_bash_session_works_in_a_service(project: Path) -> None:
    calls = scripted(
        ("bash_session", {"action": "type_submit", "input": "cd /tmp && KEPT=sake"}),
        (
            "bash_session",
            {"action": "type_submit", "input": "echo for-$KEPT in $PWD; id -un; fetch web"},
        ),
        ("bash_session", {"action": "type_submit", "input": "sleep 600; echo not-$((40 + 2))"}),
        ("bash_session", {"action": "interrupt"}),
        ("bash_session", {"action": "type_submit", "input": "echo after-$((40 + 2))"}),
    )
    session = bash_session(wait_for_output=5)
    answers = results(evaluate(in_services(project, use_tools(session), generate()), calls))
    assert "for-sake in /tmp" in answers[1]
    assert "agent" in answers[1]
    assert "the page" in "".join(answers[1:3])
    assert "after-42" in answers[4]
    assert "not-42" not in "".join(answers)


def test_injected_tools_work_in_a_service_that_is_not_the_default_one(project: Path) -> None:
    seen: dict[str, Any] = {}

    async def action(state: TaskState) -> None:
        process = await sandbox("web").exec_remote(["sh", "-c", "uname -n; exit 4"], stream=False)
        seen["remote"] = (process.returncode, process.stdout)
        for service in ("web", "default"):
            seen[service] = (await sandbox(service).exec(["uname", "-n"])).stdout

    log = evaluate(in_services(project, python_solver(action)))
    assert log.status == "success", log.error and log.error.message
    assert seen["remote"] == (4, seen["web"])
    assert seen["web"] != seen["default"]


async def nothing(state: TaskState) -> None:
    """Does nothing."""


def test_what_compose_does_is_told_in_the_samples_own_log(project: Path) -> None:
    log = evaluate(in_services(project, python_solver(nothing)))
    assert log.status == "success", log.error and log.error.message
    assert log.samples
    events = log.samples[0].events
    told = [str(event.data) for event in events if isinstance(event, InfoEvent) and event.source == "daytona"]
    assert any("docker compose build" in line for line in told), told
    assert any("docker compose up" in line for line in told), told


def test_without_room_for_a_snapshot_the_image_is_started_from_and_a_warning_says_so(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # a server of its own, which has not made that snapshot yet
    with serve(DOCKER="off") as server, pytest.MonkeyPatch.context() as patch:
        server.connect(patch)
        refusal = json.dumps({"statusCode": 400, "message": "Snapshot quota exceeded. Maximum allowed: 30"})
        server.fault("POST", "/api/snapshots", "status", status=400, body=refusal)
        machines: list[dict[str, Any]] = []

        async def look(state: TaskState) -> None:
            machines.extend(server.call("GET", f"/sandbox/{found['id']}") for found in server.sandboxes())

        log = evaluate(in_services(project, python_solver(look)))
        assert log.status == "success", log.error and log.error.message
        [machine] = machines
        assert machine["buildInfo"]["dockerfileContent"] == "FROM docker:28.3.3-dind\n"
        assert "cannot be made, so each sandbox starts from the image docker:28.3.3-dind" in caplog.text
        assert server.names() == []
