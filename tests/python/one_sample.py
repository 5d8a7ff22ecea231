"""One sample's environments, for tests that need no eval around them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from inspect_ai.util import SandboxEnvironment
from inspect_ai.util._sandbox.lifecycle import sandbox_lifecycle_scope

from inspect_daytona import DaytonaConfig, DaytonaSandboxEnvironment
from local_daytona import LocalDaytona

Services = dict[str, SandboxEnvironment]


@asynccontextmanager
async def one_sample(
    server: LocalDaytona, config: str | DaytonaConfig | None, **variables: str
) -> AsyncIterator[Services]:
    """What a sample gets between `task_init` and `task_cleanup`; afterwards nothing is left of it.

    Args:
        server: Where its sandbox is.
        config: The task's configuration.
        variables: The environment meanwhile, beside the server's own settings.
    """
    provider = DaytonaSandboxEnvironment
    with pytest.MonkeyPatch.context() as patch, sandbox_lifecycle_scope():
        server.connect(patch)
        for name, value in variables.items():
            patch.setenv(name, value)
        await provider.task_init("startup", config)
        environments = await provider.sample_init("task", config, {})
        yield environments
        await provider.sample_cleanup("task", config, environments, interrupted=False)
        await provider.task_cleanup("shutdown", config, cleanup=True)
        assert server.names() == []
