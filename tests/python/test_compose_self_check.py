"""Inspect's own conformance checks on the services of a compose file: each place, for root and for another user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox.events import SandboxEnvironmentProxy
from inspect_ai.util._sandbox.self_check import *  # noqa: F403 - the checks are what pytest collects here

import compose_project
from exchange import missing
from local_daytona import LocalDaytona
from one_sample import one_sample

REASON = missing()
pytestmark = [pytest.mark.anyio, pytest.mark.skipif(REASON is not None, reason=REASON or "")]

ROOT_MAY_WRITE = "root writes to read-only files: the kernel's rule (CAP_DAC_OVERRIDE), not the provider's"
IMPOSSIBLE_FOR_ROOT = {
    "test_write_text_file_without_permissions",
    "test_write_binary_file_without_permissions",
}

COMPOSE = """\
services:
  default:
    build: image
    user: "{default}"
    command: sleep infinity
  helper:
    build: image
    user: "{helper}"
    command: sleep infinity
"""


@dataclass(frozen=True)
class Users:
    """The users of the two services, by name and by number."""

    default: str
    helper: str

    def __str__(self) -> str:
        return f"{self.default}-{self.helper}"


@dataclass(frozen=True)
class Place:
    """One way to a service."""

    service: str
    proxy: bool

    def __str__(self) -> str:
        return f"{self.service}-{'proxy' if self.proxy else 'bare'}"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the build context `image`."""
    directory = tmp_path_factory.mktemp("self_check")
    compose_project.debian_image(directory / "image")
    return directory


@pytest.fixture(scope="module", params=[Users("root", "1000:1000"), Users("agent", "0")], ids=str)
async def users_and_services(
    request: pytest.FixtureRequest, server: LocalDaytona, image: Path
) -> AsyncIterator[tuple[Users, dict[str, SandboxEnvironment]]]:
    users: Users = request.param
    file = image / "compose.yaml"
    file.write_text(COMPOSE.format(default=users.default, helper=users.helper))
    async with one_sample(server, str(file)) as environments:
        yield users, environments


@pytest.fixture(
    params=[Place(service, proxy) for service in ("default", "helper") for proxy in (False, True)], ids=str
)
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.param
    return found


@pytest.fixture
def sandbox_env(
    request: pytest.FixtureRequest,
    users_and_services: tuple[Users, dict[str, SandboxEnvironment]],
    place: Place,
) -> SandboxEnvironment:
    users, services = users_and_services
    is_root = getattr(users, place.service) in {"root", "0"}
    if is_root and request.node.originalname in IMPOSSIBLE_FOR_ROOT:
        request.node.add_marker(pytest.mark.xfail(reason=ROOT_MAY_WRITE, strict=True))
    bare = services[place.service]
    return SandboxEnvironmentProxy(bare) if place.proxy else bare


async def test_the_default_service_comes_first_and_each_has_its_user(
    users_and_services: tuple[Users, dict[str, SandboxEnvironment]],
) -> None:
    users, services = users_and_services
    assert list(services) == ["default", "helper"]
    names = {"root": "root", "0": "root", "agent": "agent", "1000:1000": "agent"}
    for service, sandbox in services.items():
        assert (await sandbox.exec(["id", "-un"])).stdout == f"{names[getattr(users, service)]}\n"


async def test_services_do_not_see_each_other(
    users_and_services: tuple[Users, dict[str, SandboxEnvironment]],
) -> None:
    _, services = users_and_services
    await services["default"].write_file("/tmp/of-default", "own")  # noqa: S108 - of the container
    assert not (await services["helper"].exec(["ls", "/tmp/of-default"])).success  # noqa: S108
    hosts = {(await sandbox.exec(["uname", "-n"])).stdout for sandbox in services.values()}
    assert len(hosts) == 2


def test_all_checks_of_inspect_are_here() -> None:
    from inspect_ai.util._sandbox import self_check

    assert len([name for name in vars(self_check) if name.startswith("test_")]) >= 44
