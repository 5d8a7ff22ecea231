"""What holds for a container holds for all that runs in it: read from inside, beside the container's own process."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from inspect_ai.util import SandboxEnvironment

import compose_project
from exchange import missing
from local_daytona import LocalDaytona
from one_sample import one_sample

REASON = missing()
pytestmark = [pytest.mark.anyio, pytest.mark.skipif(REASON is not None, reason=REASON or "")]

COMPOSE = """\
services:
  default:
    build: image
    command: sleep infinity
  restricted:
    build: image
    command: sleep infinity
    user: "1000:1001"
    group_add: ["2000"]
    cap_drop: [ALL]
    read_only: true
    security_opt: ["no-new-privileges:true"]
  some:
    build: image
    command: sleep infinity
    cap_drop: [ALL]
    cap_add: [CHOWN, NET_BIND_SERVICE]
  small:
    build: image
    command: sleep infinity
    mem_limit: 64m
    memswap_limit: 64m
"""
SERVICES = ("default", "restricted", "some", "small")

CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
CONFINEMENT = ("NoNewPrivs", "Seccomp", "Seccomp_filters")
IDENTITY = ("Uid", "Gid", "Groups")
NOTHING = "0000000000000000"
CHOWN_AND_NET_BIND_SERVICE = f"{1 << 0 | 1 << 10:016x}"
SECCOMP_FILTER = "2"

Services = dict[str, SandboxEnvironment]


@pytest.fixture(scope="module")
async def services(server: LocalDaytona, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    directory = tmp_path_factory.mktemp("restrictions")
    compose_project.busybox_image(directory / "image")
    (directory / "compose.yaml").write_text(COMPOSE)
    async with one_sample(server, str(directory / "compose.yaml")) as environments:
        yield environments


async def said(sandbox: SandboxEnvironment, *command: str, user: str | None = None) -> str:
    result = await sandbox.exec(list(command), user=user)
    assert result.success, result.stderr
    return result.stdout


async def status(sandbox: SandboxEnvironment, process: str, user: str | None = None) -> dict[str, str]:
    """`/proc/<process>/status` as a command in the container reads it."""
    text = await said(sandbox, "cat", f"/proc/{process}/status", user=user)
    lines = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in lines}


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    "fields", [CAPABILITIES, CONFINEMENT, IDENTITY], ids=["caps", "confinement", "identity"]
)
async def test_a_command_has_what_the_containers_first_process_has(
    services: Services, service: str, fields: tuple[str, ...]
) -> None:
    own, first = await status(services[service], "self"), await status(services[service], "1")
    assert {field: own[field] for field in fields} == {field: first[field] for field in fields}


async def test_the_restrictions_of_the_compose_file_are_the_ones_that_hold(services: Services) -> None:
    restricted = await status(services["restricted"], "self")
    assert [restricted[name] for name in CAPABILITIES] == [NOTHING] * 5
    assert restricted["NoNewPrivs"] == "1"
    assert restricted["Seccomp"] == SECCOMP_FILTER
    assert restricted["Uid"].split() == ["1000"] * 4
    assert restricted["Gid"].split() == ["1001"] * 4
    assert "2000" in restricted["Groups"].split()
    some = await status(services["some"], "self")
    assert some["CapEff"] == some["CapBnd"] == CHOWN_AND_NET_BIND_SERVICE
    assert some["NoNewPrivs"] == "0"


async def test_another_user_gets_no_more_than_the_container_may_have(services: Services) -> None:
    first = await status(services["restricted"], "1")
    root = await status(services["restricted"], "self", user="root")
    assert root["Uid"].split() == ["0"] * 4
    assert root["CapEff"] == root["CapPrm"] == NOTHING
    for field in ("CapBnd", *CONFINEMENT):
        assert root[field] == first[field], field
    user = await status(services["default"], "self", user="1000:1000")
    assert user["CapEff"] == NOTHING
    assert user["CapBnd"] == (await status(services["default"], "1"))["CapBnd"]
    assert user["Uid"].split() == user["Gid"].split() == ["1000"] * 4


@pytest.mark.parametrize("service", SERVICES)
async def test_a_command_is_in_the_containers_namespaces_and_control_groups(
    services: Services, service: str
) -> None:
    script = (
        "for name in cgroup ipc mnt net pid user uts; do readlink /proc/$0/ns/$name || exit 1; done; "
        "cat /proc/$0/cgroup"
    )
    own = await said(services[service], "sh", "-c", script, "self")
    assert own == await said(services[service], "sh", "-c", script, "1")
    assert len(own.splitlines()) > 7


async def test_containers_are_in_different_namespaces(services: Services) -> None:
    found = {await said(services[name], "readlink", "/proc/self/ns/mnt") for name in SERVICES}
    assert len(found) == len(SERVICES)


async def test_a_read_only_file_system_is_read_only_for_every_user(services: Services) -> None:
    sandbox = services["restricted"]
    for user in (None, "root"):
        result = await sandbox.exec(["touch", "/new"], user=user)
        assert not result.success
        assert "Read-only file system" in result.stderr
    with pytest.raises(PermissionError):
        await sandbox.write_file("/new", "text")


async def test_the_memory_limit_kills_a_command_and_not_the_container(services: Services) -> None:
    sandbox = services["small"]
    # it fills a buffer of this size
    greedy = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1"]
    assert (await services["default"].exec(greedy)).success
    assert (await sandbox.exec(greedy)).returncode == 128 + 9
    assert await said(sandbox, "echo", "alive") == "alive\n"
