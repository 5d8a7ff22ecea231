"""Inspect's own conformance checks, for every sandbox user, bare and through the proxy that evals hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox.events import SandboxEnvironmentProxy
from inspect_ai.util._sandbox.self_check import *  # noqa: F403 - the checks are what pytest collects here

from inspect_daytona import DaytonaConfig
from local_daytona import LocalDaytona
from one_sample import one_sample

pytestmark = pytest.mark.anyio

ROOT_MAY_WRITE = "root writes to read-only files: the kernel's rule (CAP_DAC_OVERRIDE), not the provider's"


@dataclass(frozen=True)
class Variant:
    """One way to run the checks."""

    user: str
    proxy: bool

    def __str__(self) -> str:
        return f"{self.user}-{'proxy' if self.proxy else 'bare'}"

    @property
    def impossible(self) -> dict[str, str]:
        """Checks that cannot pass, with the reason."""
        if self.user != "root":
            return {}
        return {
            "test_write_text_file_without_permissions": ROOT_MAY_WRITE,
            "test_write_binary_file_without_permissions": ROOT_MAY_WRITE,
        }


VARIANTS = [Variant(user, proxy) for user in ("daytona", "root") for proxy in (False, True)]


@pytest.fixture(scope="module", params=VARIANTS, ids=str)
async def variant_and_sandbox(
    request: pytest.FixtureRequest, server: LocalDaytona
) -> AsyncIterator[tuple[Variant, SandboxEnvironment]]:
    variant: Variant = request.param
    config = None if variant.user == "daytona" else DaytonaConfig(os_user=variant.user)  # type: ignore[call-arg]
    async with one_sample(server, config) as environments:
        bare = environments["default"]
        yield variant, SandboxEnvironmentProxy(bare) if variant.proxy else bare


@pytest.fixture
def sandbox_env(
    request: pytest.FixtureRequest, variant_and_sandbox: tuple[Variant, SandboxEnvironment]
) -> SandboxEnvironment:
    variant, sandbox = variant_and_sandbox
    reason = variant.impossible.get(request.node.originalname)
    if reason is not None:
        request.node.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    return sandbox


async def test_the_sandbox_user_is_the_one_of_the_variant(
    variant_and_sandbox: tuple[Variant, SandboxEnvironment],
) -> None:
    variant, sandbox = variant_and_sandbox
    assert (await sandbox.exec(["id", "-un"])).stdout == f"{variant.user}\n"


def test_all_checks_of_inspect_are_here() -> None:
    from inspect_ai.util._sandbox import self_check

    assert len([name for name in vars(self_check) if name.startswith("test_")]) >= 44
