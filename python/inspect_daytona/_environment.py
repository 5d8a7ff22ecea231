"""The sandbox provider: maps Inspect's calls to the native module, and its errors to Inspect's exceptions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

import anyio
from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxConnection,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxEnvironmentLimits,
    trace_action,
)
from pydantic import BaseModel
from typing_extensions import override

from . import _trace
from ._bridge import Callback, complete, from_any_thread
from ._config import CONFIG_FILES, DaytonaConfig, settings_json

if TYPE_CHECKING:
    from . import _core

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Inspect's own deadline for nothing: a cleanup is shielded from cancellation, so it must end by itself. The native
# side goes on deleting in the background after that, and task_cleanup waits for it once more.
CLEANUP_SECONDS = 120


class DaytonaSandboxEnvironment(SandboxEnvironment):
    """A Daytona sandbox."""

    def __init__(self, sandbox: _core.Sandbox) -> None:
        super().__init__()
        self._sandbox = sandbox

    @property
    def sandbox_id(self) -> str:
        """The sandbox's id on the platform."""
        return self._sandbox.id

    @property
    def sandbox_name(self) -> str:
        """The sandbox's name on the platform."""
        return self._sandbox.name

    @classmethod
    @override
    def config_files(cls) -> list[str]:
        return list(CONFIG_FILES)

    @classmethod
    @override
    def is_docker_compatible(cls) -> bool:
        return True

    @classmethod
    @override
    def config_deserialize(cls, config: dict[str, Any]) -> BaseModel:
        return DaytonaConfig.model_validate(config)

    @override
    def default_polling_interval(self) -> float:
        # each poll is a request over the network, and a billed one in the cloud
        return 1.0

    @classmethod
    @override
    async def task_init(cls, task_name: str, config: SandboxEnvironmentConfigType | None) -> None:
        from . import _lifecycle

        warn_of_other_providers()
        await _lifecycle.task_init(config)

    @classmethod
    @override
    async def task_init_environment(
        cls, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, str]:
        from . import _lifecycle

        return _lifecycle.task_init_environment(config, metadata)

    @classmethod
    @override
    async def task_cleanup(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, cleanup: bool
    ) -> None:
        from . import _lifecycle

        await _lifecycle.task_cleanup(cleanup)

    @classmethod
    @override
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        from ._notes import Notes
        from ._session import connect, current_batch

        batch = current_batch()
        settings = settings_json(config, batch.directories.of(config), metadata)
        run = batch.run(await connect())
        sample_id = metadata.get("__sample_id__")
        name = run.sandbox_name(task_name, None if sample_id is None else str(sample_id))
        try:
            with Notes(name, batch.warned) as notes, trace_action(_trace.logger, "Daytona create", name):
                create = partial(run.create, name, settings, from_any_thread(notes.take))
                services = await complete(create)
        except BaseException:
            # also where the sandbox was there already and only the news of it was lost to a cancellation
            run.abandon(name)
            raise
        return {service.service: cls(service) for service in services}

    @classmethod
    @override
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        ours = [env for env in environments.values() if isinstance(env, DaytonaSandboxEnvironment)]
        # the services of a compose file share a sandbox
        for environment in {env.sandbox_name: env for env in ours}.values():
            await environment._delete()  # noqa: SLF001 - of this class

    async def _delete(self) -> None:
        """Deletes the sandbox; what fails here is tried again, and reported, by task_cleanup."""
        with (
            anyio.move_on_after(CLEANUP_SECONDS, shield=True),
            trace_action(_trace.logger, "Daytona delete", self.sandbox_name),
        ):
            try:
                await complete(self._sandbox.delete)
            except Exception as ex:
                logger.warning("%s. It is tried again when the eval ends.", ex)

    @classmethod
    @override
    async def cli_cleanup(cls, id: str | None) -> None:
        from . import _cleanup

        await _cleanup.cli_cleanup(id)

    @override
    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        # timeout_retry: a command that ran into its timeout has run, and nothing here runs a command twice; what can
        # be retried is the transport, and that is retried always. concurrency: no limiter here to be exempt from.
        returncode, stdout, stderr, timed_out = await self._traced(
            "exec",
            cmd,
            partial(
                self._sandbox.exec,
                list(cmd),
                input.encode() if isinstance(input, str) else input,
                cwd,
                env or {},
                user,
                timeout,
                SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE,
            ),
        )
        if timed_out:
            error = TimeoutError(f"Command timed out after {timeout} seconds")
            error.truncated_output = stdout + stderr  # type: ignore[attr-defined]
            raise error
        return ExecResult(returncode == 0, returncode, stdout, stderr)

    @override
    async def write_file(self, file: str, contents: str | bytes) -> None:
        data = contents.encode() if isinstance(contents, str) else contents
        await self._traced("write", [file], partial(self._sandbox.write_file, file, data))

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    @override
    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        from .errors import OutputLimitError

        limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        limit_str = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR
        try:
            contents = await self._traced("read", [file], partial(self._sandbox.read_file, file, limit))
        except OutputLimitError:
            raise OutputLimitExceededError(limit_str=limit_str, truncated_output=None) from None
        return contents.decode() if text else contents

    async def _traced(
        self, action: str, words: Sequence[str], start: Callable[[Callback], _core.Operation[T]]
    ) -> T:
        """Completes an operation that `inspect trace` shows while it is under way and afterwards."""
        if not _trace.is_traced():
            return await complete(start)
        shown = _trace.shown(words)
        with trace_action(_trace.logger, f"Daytona {action}", "%s: %s", self.sandbox_name, shown):
            return await complete(start)

    @override
    async def connection(self, *, user: str | None = None) -> SandboxConnection:
        command = self._sandbox.connection_command(user)
        if command is None:
            raise NotImplementedError("a sandbox of a Daytona inside this process has no shell to connect to")
        if self._sandbox.is_deleted:
            raise ConnectionError(f"sandbox {self.sandbox_name} was deleted")
        return SandboxConnection(type="daytona", command=command, container=self.sandbox_name)


def warn_of_other_providers() -> None:
    """Warns if another package registered the name `daytona` too: Inspect takes the first one without a word."""
    from inspect_ai._util.logger import warn_once
    from inspect_ai._util.registry import registry_find
    from inspect_ai.util._sandbox.registry import registry_match_sandboxenv

    providers = cast("list[type]", registry_find(registry_match_sandboxenv("daytona")))
    if len(providers) < 2:
        return
    packages = [provider.__module__.partition(".")[0] for provider in providers]
    others = ", ".join(sorted({package for package in packages if package != __package__}))
    warn_once(
        logger,
        f"{others} and {__package__} both provide the sandbox 'daytona'; Inspect uses the one of {packages[0]}. "
        "Uninstall the other one.",
    )
