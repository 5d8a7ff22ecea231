"""`inspect sandbox cleanup daytona [id]`."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import NoReturn

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.prompt import Confirm
from rich.table import Table

from ._bridge import complete
from ._session import _core, _settings, connect
from .errors import DaytonaError

Row = tuple[str, str, str, str, str]


async def cli_cleanup(id: str | None) -> None:
    """Deletes every sandbox that an Inspect eval created, or the one with this id or name.

    Asks first if all are meant and a person is at the terminal; without one, as in scripts, it deletes at once. Exits
    with status 1 if the sandbox is not there or anything could not be deleted.
    """
    console = Console()
    if _core.is_local(_settings(os.environ)):
        console.print(
            "A local Daytona ends with its process, and every sandbox with it: there is nothing to clean up."
        )
        return
    try:
        provider = await connect()
        rows = await complete(partial(provider.find_sandboxes, id))
    except DaytonaError as ex:
        _fail(console, str(ex))
    if not rows:
        console.print("No sandboxes of Inspect evals found.")
        return
    console.print(_table(rows))
    if id is None and sys.stdin.isatty():
        # whoever reads standard output, a pipe perhaps, is not who answers
        terminal = Console(stderr=True)
        if not sys.stdout.isatty():
            terminal.print(_table(rows))
        question = f"Delete {len(rows)} sandboxes? Evals that still run, also those of others, lose theirs"
        try:
            confirmed = Confirm.ask(question, console=terminal, default=False)
        except EOFError:
            # Ctrl-D is no yes
            confirmed = False
        if not confirmed:
            console.print("Nothing was deleted.")
            return
    with console.status(f"Deleting {len(rows)} sandboxes (please do not interrupt)"):
        try:
            failed = await complete(partial(provider.delete_sandboxes, [row[0] for row in rows]))
        except DaytonaError as ex:
            _fail(console, f"Nothing was deleted: {ex}")
    console.print(f"Deleted {len(rows) - len(failed)} of {len(rows)} sandboxes.")
    if failed:
        names = {row[0]: row[1] for row in rows}
        lines = [f"{names[id]} ({id}): {reason}" for id, reason in failed]
        _fail(
            console, "\n".join(["Not deleted, try again with inspect sandbox cleanup daytona <id>:", *lines])
        )


def _table(rows: list[Row]) -> Table:
    table = Table(
        title="Daytona sandboxes of Inspect evals", box=box.SQUARE_DOUBLE_HEAD, title_justify="left"
    )
    for column in ("ID", "Name", "State", "Created", "Run"):
        table.add_column(column, overflow="fold")
    for row in rows:
        # labels and names are other people's text, not markup
        table.add_row(*(escape(cell) for cell in row))
    return table


def _fail(console: Console, message: str) -> NoReturn:
    console.print(message, markup=False, highlight=False)
    sys.exit(1)
