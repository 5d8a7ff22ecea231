"""The commands: `inspect sandbox cleanup daytona`, and those of `inspect-daytona`."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from local_daytona import LIMIT_SECONDS, LocalDaytona, clean_environment, command_lines, run, serve

CLEANUP = ["-m", "inspect_ai", "sandbox", "cleanup", "daytona"]


def cleanup(server: LocalDaytona, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `inspect sandbox cleanup daytona`, without a terminal."""
    # wide, so that no cell of the table is folded
    return run(*CLEANUP, *arguments, variables=server.environment | {"COLUMNS": "250"}, seconds=120)


def test_cleanup_deletes_every_sandbox_of_inspect_and_no_other(daytona: LocalDaytona) -> None:
    boxes = [daytona.create(f"inspect-a-{number}") for number in range(3)]
    daytona.create("somebody-elses", labels={})
    done = cleanup(daytona)
    assert done.returncode == 0, done.stderr
    for box in boxes:
        row = next(line for line in done.stdout.splitlines() if box["id"] in line)
        assert box["name"] in row
        assert "started" in row
    assert "Deleted 3 of 3" in done.stdout
    assert daytona.names() == ["somebody-elses"]
    daytona.delete_all()


@pytest.mark.parametrize("key", ["id", "name"])
def test_cleanup_of_one_sandbox_by_id_or_name_leaves_the_others(daytona: LocalDaytona, key: str) -> None:
    one, _ = daytona.create("inspect-one"), daytona.create("inspect-other")
    done = cleanup(daytona, one[key])
    assert done.returncode == 0, done.stderr
    assert daytona.names() == ["inspect-other"]
    daytona.delete_all()


def test_cleanup_of_an_unknown_sandbox_fails_and_names_it(daytona: LocalDaytona) -> None:
    daytona.create("inspect-other")
    done = cleanup(daytona, "inspect-nobody")
    assert done.returncode == 1
    assert "inspect-nobody" in done.stdout + done.stderr
    assert daytona.names() == ["inspect-other"]
    daytona.delete_all()


def test_cleanup_of_nothing_succeeds_and_says_so(daytona: LocalDaytona) -> None:
    done = cleanup(daytona)
    assert done.returncode == 0, done.stderr
    assert "No sandboxes" in done.stdout


def test_a_failing_delete_is_named_and_fails_the_command_after_the_others_are_deleted(
    daytona: LocalDaytona,
) -> None:
    boxes = [daytona.create(f"inspect-a-{number}") for number in range(3)]
    body = '{"statusCode":400,"message":"Sandbox is protected","error":"Bad Request"}'
    path = f"/api/sandbox/{boxes[1]['id']}"
    daytona.fault("DELETE", path, "status", status=400, body=body, contentType="application/json")
    done = cleanup(daytona)
    assert done.returncode == 1
    assert "Deleted 2 of 3" in done.stdout
    said = done.stdout + done.stderr
    assert "Sandbox is protected" in said
    assert boxes[1]["name"] in said.partition("Deleted 2 of 3")[2]
    assert daytona.names() == [boxes[1]["name"]]
    daytona.reset()
    daytona.delete_all()


def test_a_key_that_may_not_delete_is_refused_once_and_told_what_it_lacks(daytona: LocalDaytona) -> None:
    boxes = [daytona.create(f"inspect-a-{number}") for number in range(3)]
    body = '{"statusCode":403,"message":"Access denied","error":"Forbidden"}'
    daytona.fault("DELETE", "/api/sandbox/*", "status", status=403, body=body, contentType="application/json")
    done = cleanup(daytona)
    assert done.returncode == 1
    assert "delete:sandboxes" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert daytona.requests("DELETE", "/api/sandbox") == 1
    assert len(daytona.names()) == len(boxes)
    daytona.reset()
    daytona.delete_all()


@pytest.mark.parametrize("variable", ["DAYTONA_API_URL", "DAYTONA_SERVER_URL"])
def test_cleanup_of_a_local_daytona_starts_none(variable: str) -> None:
    done = run(*CLEANUP, variables={variable: " Local "}, seconds=120)
    assert done.returncode == 0, done.stderr
    assert "nothing to clean up" in " ".join(done.stdout.split())


def test_cleanup_goes_past_one_page(daytona: LocalDaytona) -> None:
    # the API's pages hold at most 200
    count = 205
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: daytona.create(f"inspect-a-{number}"), range(count)))
    done = cleanup(daytona)
    assert done.returncode == 0, done.stderr
    assert f"Deleted {count} of {count}" in done.stdout
    assert daytona.names() == []


@pytest.mark.parametrize(
    ("answer", "left"),
    [("n", ["inspect-a"]), ("\x04", ["inspect-a"]), ("y", [])],
    ids=["no", "Ctrl-D", "yes"],
)
def test_cleanup_of_everything_asks_on_a_terminal(
    daytona: LocalDaytona, answer: str, left: list[str]
) -> None:
    daytona.create("inspect-a")
    ours, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, *CLEANUP],
        env=clean_environment(**daytona.environment),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        os.write(ours, f"{answer}\n".encode())
        said = b""
        # a terminal whose last program has ended answers with an error
        with contextlib.suppress(OSError):
            while chunk := os.read(ours, 4096):
                said += chunk
        os.close(ours)
        assert process.wait(LIMIT_SECONDS) == 0
    assert b"Delete 1 sandbox" in said
    assert daytona.names() == left
    daytona.delete_all()


def test_cleanup_of_everything_asks_a_person_whose_output_goes_elsewhere(daytona: LocalDaytona) -> None:
    daytona.create("inspect-a")
    ours, terminal = pty.openpty()
    os.write(ours, b"n\n")
    done = subprocess.run(
        [sys.executable, *CLEANUP],
        env=clean_environment(**daytona.environment),
        stdin=terminal,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    os.close(terminal)
    os.close(ours)
    assert done.returncode == 0, done.stderr
    assert "Delete 1 sandbox" in done.stderr
    assert "Delete 1 sandbox" not in done.stdout
    assert "inspect-a" in done.stderr
    assert daytona.names() == ["inspect-a"]
    daytona.delete_all()


def test_cleanup_without_a_key_is_one_sentence() -> None:
    done = run(*CLEANUP, seconds=120)
    assert done.returncode == 1
    assert "DAYTONA_API_KEY" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda stop: stop.name)
def test_serve_ends_cleanly_with_every_sandbox_gone(stop: signal.Signals, tmp_path: Path) -> None:
    with serve(DIRECTORY=str(tmp_path / "sandboxes")) as server:
        box = server.create("inspect-a")
        url = f"/toolbox/{box['id']}/process/execute"
        sleeper = ["sleep", "86123"]
        server_root = server.url.removesuffix("/api")
        at_root = LocalDaytona(server.process, server_root, server.api_key)
        started = at_root.call(
            "POST", url, {"command": "sh -c 'sleep 86123 >/dev/null 2>&1 &'", "timeout": 10}
        )
        assert started["exitCode"] == 0
        assert sleeper in command_lines()
        assert server.stop(stop) == 0
        assert sleeper not in command_lines()
    # the lock is for the servers that share the directory, also those to come
    assert [path.name for path in (tmp_path / "sandboxes").iterdir()] == ["lock"]


def test_serve_takes_host_and_port() -> None:
    with serve() as server:
        assert server.url.startswith("http://127.0.0.1:")
        port = server.url.partition("127.0.0.1:")[2].partition("/")[0]
        taken = run("-m", "inspect_daytona", "serve", "--port", port)
        assert taken.returncode == 1
        assert taken.stdout == ""
        assert port in taken.stderr


def free_port(address: str) -> int:
    """A port that nobody listens at now."""
    with socket.create_server((address, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_serve_listens_where_the_variables_say_unless_an_option_says_otherwise() -> None:
    port = free_port("127.0.0.2")
    with serve(HOST="127.0.0.2", PORT=str(port)) as server:
        assert server.url == f"http://127.0.0.2:{port}/api"
        taken = run(
            *["-m", "inspect_daytona", "serve", "--host", "127.0.0.2", "--port", str(port)],
            variables={"INSPECT_DAYTONA_LOCAL_HOST": "127.0.0.1", "INSPECT_DAYTONA_LOCAL_PORT": "0"},
        )
        assert (taken.returncode, taken.stdout) == (1, "")
        assert f"127.0.0.2:{port}" in taken.stderr


def test_a_local_server_listens_where_the_variables_say_unless_an_argument_says_otherwise() -> None:
    port = free_port("127.0.0.2")
    program = """
import anyio
from inspect_daytona import LocalServer
async def main():
    async with LocalServer() as first, LocalServer(port=0) as second, LocalServer("127.0.0.3", 0) as third:
        print(first.url, second.url, third.url)
anyio.run(main)
"""
    variables = {"INSPECT_DAYTONA_LOCAL_HOST": "127.0.0.2", "INSPECT_DAYTONA_LOCAL_PORT": str(port)}
    done = run("-c", program, variables=variables)
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.split()
    assert first == f"http://127.0.0.2:{port}/api"
    assert second.startswith("http://127.0.0.2:")
    assert second != first
    assert third.startswith("http://127.0.0.3:")


@pytest.mark.parametrize(
    ("arguments", "variables", "says"),
    [
        (["--port", "70000"], {}, "70000"),
        (["--host", "0.0.0.0"], {}, "INSPECT_DAYTONA_LOCAL_ALLOW_REMOTE"),  # noqa: S104 - it is refused
        ([], {"INSPECT_DAYTONA_LOCAL_COLOUR": "blue"}, "INSPECT_DAYTONA_LOCAL_COLOUR"),
        ([], {"INSPECT_DAYTONA_LOCAL_ENGINE": "magic"}, "magic"),
    ],
)
def test_serve_refuses_wrong_settings_in_one_sentence(
    arguments: list[str], variables: dict[str, str], says: str
) -> None:
    done = run("-m", "inspect_daytona", "serve", *arguments, variables=variables)
    assert done.returncode in {1, 2}
    assert done.stdout == ""
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def shell(
    server: LocalDaytona, folder: Path, *arguments: str, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `inspect-daytona shell` where ssh shows its arguments, and the server says how to get in by ssh."""
    ssh = folder / "ssh"
    ssh.write_text('#!/bin/sh\nprintf "<%s>" "$@"\nexit 7\n')
    ssh.chmod(0o755)
    access = {"id": "1", "sandboxId": "1", "token": "token", "sshCommand": "ssh -p 22 token@ssh.invalid"}
    times = dict.fromkeys(("expiresAt", "createdAt", "updatedAt"), "2030-01-01T00:00:00.000Z")
    server.fault(
        *("POST", "/api/sandbox/*/ssh-access", "status"),
        status=200,
        body=json.dumps(access | times),
        contentType="application/json",
    )
    settings = server.environment if variables is None else variables
    done = run(
        *("-m", "inspect_daytona", "shell", *arguments),
        variables={**settings, "PATH": f"{folder}:{os.environ['PATH']}"},
        directory=folder,
    )
    server.reset()
    return done


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "<-p><22><token@ssh.invalid>"),
        (["--user", "me"], "<-t><-p><22><token@ssh.invalid><if command -v sudo"),
        (["--container", "c1"], "<-t><-p><22><token@ssh.invalid><docker exec -it 'c1' sh -c "),
        (
            ["--container", "c1", "--user", "me"],
            "<-t><-p><22><token@ssh.invalid><docker exec -it --user 'me' 'c1' sh -c ",
        ),
    ],
    ids=["sandbox", "a user of it", "container", "a user of the container"],
)
def test_shell_enters_a_sandbox_or_a_container_of_it_by_ssh(
    daytona: LocalDaytona, tmp_path: Path, arguments: list[str], words: str
) -> None:
    box = daytona.create("inspect-box")
    done = shell(daytona, tmp_path, box["id"], *arguments)
    daytona.delete_all()
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith(words)


def test_shell_says_where_there_is_no_ssh(daytona: LocalDaytona) -> None:
    box = daytona.create("inspect-box")
    done = run(
        "-m", "inspect_daytona", "shell", box["id"], "--container", "c1", variables=daytona.environment
    )
    assert done.returncode == 1
    assert "local Daytona has no ssh" in done.stderr
    assert "Traceback" not in done.stderr
    daytona.delete_all()


def test_shell_reads_the_settings_in_a_dotenv_file(daytona: LocalDaytona, tmp_path: Path) -> None:
    box = daytona.create("inspect-box")
    lines = [f"{name}={value}\n" for name, value in daytona.environment.items()]
    (tmp_path / ".env").write_text("".join(lines))
    done = shell(daytona, tmp_path, box["id"], variables={})
    daytona.delete_all()
    assert done.returncode == 7, done.stderr


def test_shell_of_an_unknown_sandbox_fails_and_names_it(daytona: LocalDaytona) -> None:
    done = run("-m", "inspect_daytona", "shell", "nobody", "--container", "c1", variables=daytona.environment)
    assert done.returncode == 1
    assert "nobody" in done.stderr
    assert "Traceback" not in done.stderr


def test_shell_does_not_start_a_daytona_of_its_own() -> None:
    done = run(
        "-m", "inspect_daytona", "shell", "box", "--container", "c1", variables={"DAYTONA_API_URL": "local"}
    )
    assert done.returncode == 1
    assert "DAYTONA_API_URL" in done.stderr
