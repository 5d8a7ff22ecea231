"""What a compose file names of this machine and Compose in the sandbox could not find: it is there all the same."""

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

TEXT = "it's a $TOKEN\nof two lines"
SETTINGS = "a $SETTING"
COMPOSE = """\
include: [elsewhere/inner.yaml]
services:
  default:
    build: {context: image, dockerfile: own.Dockerfile, secrets: [token]}
    command: sleep infinity
    user: nobody
    secrets: [token, {source: token, target: again}]
    configs: [settings]
    volumes: ["data:/data"]
    label_file: labels
secrets: {token: {environment: TEST_TOKEN}}
configs: {settings: {environment: TEST_SETTINGS}}
volumes: {data: {driver_opts: {type: none, o: bind, device: ./data}}}
"""
INNER = """\
services:
  inner:
    build: {dockerfile: Dockerfile}
    command: sleep infinity
"""

Services = dict[str, SandboxEnvironment]


@pytest.fixture(scope="module")
async def services(server: LocalDaytona, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    directory = tmp_path_factory.mktemp("values")
    image = directory / "image"
    compose_project.busybox_image(image)
    text = (image / "Dockerfile").read_text()
    added = "RUN echo 'nobody:x:65534:65534::/:/bin/sh' >>/etc/passwd\nCOPY . /context\n"
    added += "RUN --mount=type=secret,id=token cp /run/secrets/token /built-with && chmod 644 /built-with\n"
    (image / "own.Dockerfile").write_text(text + added)
    (image / "own.Dockerfile.dockerignore").write_text("left-out\n")
    (image / ".dockerignore").write_text("sent\n")
    for name in ("sent", "left-out"):
        (image / name).write_text(name)
    compose_project.busybox_image(directory / "elsewhere")
    with (directory / "elsewhere/Dockerfile").open("a") as dockerfile:
        dockerfile.write("COPY which /which\n")
    (directory / "data").mkdir()
    for name, where in {"data": "data/which", "labels": "labels", "elsewhere": "elsewhere/which"}.items():
        (directory / where).write_text(f"NAME={name}\n")
    (directory / "elsewhere/inner.yaml").write_text(INNER)
    (directory / "compose.yaml").write_text(COMPOSE)
    file = str(directory / "compose.yaml")
    async with one_sample(server, file, TEST_TOKEN=TEXT, TEST_SETTINGS=SETTINGS) as environments:
        yield environments


@pytest.mark.parametrize("path", ["/run/secrets/token", "/run/secrets/again", "/built-with"])
async def test_a_secret_of_a_variable_is_there_for_services_and_builds(services: Services, path: str) -> None:
    assert await services["default"].read_file(path) == TEXT


async def test_a_config_of_a_variable_is_there(services: Services) -> None:
    assert await services["default"].read_file("/settings") == SETTINGS


async def test_a_volume_holds_the_directory_that_it_binds(services: Services) -> None:
    assert await services["default"].read_file("/data/which") == "NAME=data\n"


async def test_a_builder_sees_what_the_dockerfiles_own_ignore_file_lets_through(services: Services) -> None:
    listed = await services["default"].exec(["ls", "-A", "/context"])
    assert "sent" in listed.stdout.split()
    assert "left-out" not in listed.stdout.split()


async def test_an_included_files_build_starts_in_its_own_directory(services: Services) -> None:
    assert await services["inner"].read_file("/which") == "NAME=elsewhere\n"
