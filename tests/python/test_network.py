"""Evals whose tasks say what their sandboxes may reach, and which volumes they have."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from inspect_ai import Task
from inspect_ai.solver import TaskState
from inspect_ai.util import sandbox

from local_daytona import LocalDaytona, serve
from tool_calls import evaluate, python_solver

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None,
    reason="needs root and ip (iproute2), to give this machine addresses that sandboxes can reach",
)


@contextmanager
def peer() -> Iterator[tuple[str, int]]:
    """An address of this machine for as long as a test runs, with a server that says hello."""
    # a range that nothing else of this machine uses, and so large that two runs hardly meet
    address = f"198.18.{random.randrange(128, 256)}.{random.randrange(1, 255)}"  # noqa: S311 - no secret
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    try:
        with socket.create_server((address, 0)) as listener:

            def answer() -> None:
                while True:
                    try:
                        connection, _ = listener.accept()
                    except OSError:
                        return
                    with connection:
                        connection.sendall(b"hello\n")

            threading.Thread(target=answer, daemon=True).start()
            yield address, listener.getsockname()[1]
            listener.shutdown(socket.SHUT_RDWR)
    finally:
        subprocess.run(["ip", "address", "del", f"{address}/32", "dev", "lo"], check=True)


@contextmanager
def name_server(names: dict[str, str]) -> Iterator[str]:
    """A name server that knows these names; `address:port`."""
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.1)
        ended = threading.Event()

        def answer() -> None:
            while not ended.is_set():
                try:
                    query, client = server.recvfrom(512)
                except TimeoutError:
                    continue
                end = query.index(b"\0", 12) + 5
                labels, at = [], 12
                while query[at]:
                    labels.append(query[at + 1 : at + 1 + query[at]].decode())
                    at += 1 + query[at]
                address = names.get(".".join(labels).lower())
                flags = b"\x81\x80" if address else b"\x81\x83"
                counts = bytes([0, 1, 0, 1 if address else 0, 0, 0, 0, 0])
                record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(address) if address else b""
                server.sendto(query[:2] + flags + counts + query[12:end] + record, client)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield "{}:{}".format(*server.getsockname())
        finally:
            ended.set()
            thread.join()


# settings of `x-daytona` follow
COMPOSE = "services:\n  default: {}\nx-daytona:\n  snapshot: daytonaio/sandbox:0.5.0-slim\n"
CONNECT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as connection:
        print(connection.recv(100).decode().strip())
except OSError as ex:
    print(type(ex).__name__, ex)
"""


def reached(settings: str, *targets: tuple[str, int]) -> list[str]:
    """What a sandbox with these settings of `x-daytona` gets from each target, one after the other."""
    Path("compose.yaml").write_text(COMPOSE + settings)
    found: list[str] = []

    async def action(state: TaskState) -> None:
        for host, port in targets:
            result = await sandbox().exec(["python3", "-c", CONNECT, host, str(port)], timeout=60)
            assert result.success, result.stderr
            found.append(result.stdout.strip())

    log = evaluate(Task(solver=python_solver(action), sandbox=("daytona", "compose.yaml")))
    assert log.status == "success", log.error and log.error.message
    return found


@pytest.mark.usefixtures("daytona", "empty_directory")
def test_a_list_of_networks_lets_one_address_through_and_not_the_other() -> None:
    with peer() as listed, peer() as other:
        settings = f"  network_allow_list: {listed[0]}/32\n"
        answer, refusal = reached(settings, listed, other)
    assert answer == "hello"
    assert "No route to host" in refusal


@pytest.mark.usefixtures("daytona", "empty_directory")
def test_a_blocked_network_cannot_connect_and_an_open_one_can() -> None:
    with peer() as target:
        assert reached("  network_block_all: false\n", target) == ["hello"]
        [refusal] = reached("  network_block_all: true\n", target)
    assert "Network is unreachable" in refusal


@pytest.mark.usefixtures("daytona", "empty_directory")
def test_the_loopback_interface_of_the_machine_is_not_the_sandboxs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        [refusal] = reached("  network_block_all: false\n", listener.getsockname())
    assert "ConnectionRefusedError" in refusal


def test_a_list_of_names_lets_one_name_through_and_not_the_other(
    monkeypatch: pytest.MonkeyPatch, empty_directory: Path
) -> None:
    with peer() as target, name_server({"good.test": target[0], "bad.test": target[0]}) as resolver:
        port = target[1]
        with serve(DNS=resolver) as server:
            server.connect(monkeypatch)
            settings = "  domain_allow_list: [good.test]\n"
            found = reached(settings, target, ("bad.test", port), ("good.test", port), target)
    assert "No route to host" in found[0]
    assert "gaierror" in found[1]
    assert found[2:] == ["hello", "hello"]


@pytest.mark.usefixtures("empty_directory")
def test_a_volume_keeps_what_one_sample_writes_for_the_next(daytona: LocalDaytona) -> None:
    volume = daytona.call("POST", "/volumes", {"name": "kept"})["id"]
    Path("compose.yaml").write_text(COMPOSE + "  volumes: ['kept:/home/daytona/kept']\n")
    seen: list[str] = []

    async def action(state: TaskState) -> None:
        result = await sandbox().exec(["sh", "-c", "cat kept/file; echo again >> kept/file"])
        seen.append(result.stdout)

    for _ in range(2):
        log = evaluate(Task(solver=python_solver(action), sandbox=("daytona", "compose.yaml")))
        assert log.status == "success", log.error and log.error.message
    daytona.call("DELETE", f"/volumes/{volume}")
    assert seen == ["", "again\n"]
