"""What happens once per task: checks before anything is created, and the account of what is left at the end."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.util import SandboxEnvironmentConfigType, display_type, trace_action

from . import _trace
from ._bridge import complete, from_any_thread
from ._config import settings_json
from ._session import _core, connect, current_batch
from .errors import DaytonaError

logger = logging.getLogger(__name__)

# Waits of the native side for creations and deletes under way end before this.
FINISH_SECONDS = 300


async def task_init(config: SandboxEnvironmentConfigType | None) -> None:
    """Checks settings, key, server and configuration, and prepares what samples start from.

    Idempotent: Inspect calls it once per distinct configuration.

    Raises:
        PrerequisiteError: With the one sentence that the user needs.
    """
    batch = current_batch()
    try:
        settings = settings_json(config, batch.directories.remember(config))
        provider = await connect()
        with trace_action(_trace.logger, "Daytona check", provider.api_url):
            warnings = await complete(partial(provider.check, settings))
        if _prebuilt():
            await complete(partial(provider.expect_prebuilt, settings))
        with trace_action(_trace.logger, "Daytona prepare", provider.api_url):
            # Inspect's display is drawn by the event loop's thread
            await complete(partial(provider.prepare, settings, from_any_thread(_show)))
    except DaytonaError as ex:
        raise PrerequisiteError(str(ex)) from ex
    for warning in warnings:
        logger.warning(warning)
    batch.run(provider)


def task_init_environment(
    config: SandboxEnvironmentConfigType | None, metadata: Mapping[str, Any]
) -> dict[str, str]:
    """The `SAMPLE_METADATA_*` variables without which `task_init` would prepare another image than the sample's."""
    if not isinstance(config, str):
        return {}
    try:
        return _core.task_environment(settings_json(config, str(Path.cwd()), metadata))
    except DaytonaError:
        # task_init, which comes next, says what is wrong
        return {}


def _prebuilt() -> bool:
    """Whether the user says that nothing is to be built (`--sandbox-prebuilt`)."""
    try:
        from inspect_ai.util._sandbox.environment import sandbox_prebuilt
    except ImportError:
        # Inspect keeps it to itself
        return False
    return sandbox_prebuilt()


def _show(line: str) -> None:
    """Tells the user what a preparation, which may take minutes, is doing."""
    logger.info(line)
    if display_type() != "none":
        from inspect_ai._display import display

        display().print(line)


async def task_cleanup(cleanup: bool) -> None:
    """Deletes what the batch's samples left behind; with `cleanup` false, says what is kept and how to delete it.

    Idempotent: by the first call of a batch all of its samples have ended.
    """
    batch = current_batch()
    batch.directories.forget()
    # an eval that comes later in a process without batches is told anew
    batch.warned.clear()
    rows: list[tuple[str, str | None, str]] = []
    ending: set[str] = set()
    for run in list(batch.runs):
        # what the account says if there is no time for more
        left = None
        with (
            anyio.move_on_after(FINISH_SECONDS, shield=True),
            trace_action(_trace.logger, "Daytona finish", run.id),
        ):
            left = await complete(partial(run.finish, cleanup))
        if left is None:
            left = run.left()
            logger.error("the sandboxes of this eval were not cleaned up within %d s", FINISH_SECONDS)
        rows += left
        if run.is_local:
            ending.update(name for name, _, _ in left)
        # what is kept must survive later evals; what is left is tried again
        if not (cleanup and left):
            batch.runs.remove(run)
    news = [row for row in rows if row[0] not in batch.reported]
    batch.reported.update(name for name, _, _ in news)
    if news and cleanup:
        for name, id, reason in news:
            logger.error(
                "sandbox %s may still exist and cost money: %s. Delete it with: inspect sandbox cleanup daytona %s",
                name,
                reason or "there was no time to delete it",
                id or name,
            )
    elif news:
        _print_kept([row for row in news if row[0] not in ending])
        if ending:
            logger.warning(
                "the sandboxes of this eval are kept until this process ends: their Daytona is inside of it. For "
                "ones that stay, use inspect-daytona serve, or the cloud."
            )


def _print_kept(rows: list[tuple[str, str | None, str]]) -> None:
    if not rows:
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="Daytona Sandboxes (not yet cleaned up):",
        box=box.SQUARE_DOUBLE_HEAD,
        show_lines=True,
        title_style="bold",
        title_justify="left",
    )
    for column in ("Name", "ID", "Delete with"):
        table.add_column(column)
    for name, id, _ in rows:
        table.add_row(name, id or "", f"inspect sandbox cleanup daytona {id or name}")
    # with no display, standard output belongs to whoever reads it by machine
    console = Console(file=sys.stderr if display_type() == "none" else sys.stdout)
    console.print(table)
    console.print(
        "\nCleanup all sandboxes of all Inspect evals with: [blue]inspect sandbox cleanup daytona[/blue]. "
        "Where the server supports it, a kept sandbox ends by itself after 24 hours, or at the end of the "
        "ttl_minutes that its configuration gives it.\n"
    )
