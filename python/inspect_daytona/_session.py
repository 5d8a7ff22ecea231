"""The native module, the process's connection to Daytona, and what one eval batch shares.

Imported at the first lifecycle call, never when Inspect merely looks for providers.
"""

from __future__ import annotations

import atexit
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from ._bridge import complete
from ._config import Directories

try:
    from . import _core as _core  # noqa: PLC0414 - for others to import from here, where its absence is explained
except ImportError as ex:
    from inspect_ai._util.error import PrerequisiteError

    raise PrerequisiteError(
        f"the native module of inspect-daytona cannot be loaded ({ex}). "
        "Install a wheel for this Python and platform: pip install --force-reinstall inspect-daytona"
    ) from ex

if TYPE_CHECKING:
    from collections.abc import Mapping


async def connect() -> _core.Provider:
    """The connection that the environment variables describe; one per process and settings.

    `DAYTONA_API_URL=local` starts a Daytona inside this process, once.

    Raises:
        DaytonaConfigError: If a setting is missing or wrong.
    """
    return await complete(partial(_core.connect, _settings(os.environ)))


def _settings(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that the native side reads; the others stay out of it."""
    prefixes = ("DAYTONA_", "INSPECT_DAYTONA_")
    return {name: value for name, value in environ.items() if name.startswith(prefixes)}


class Batch:
    """What all tasks and samples of one eval batch share."""

    def __init__(self) -> None:
        self.runs: list[_core.Run] = []
        """Those under way: one, or several if the environment's settings changed meanwhile."""
        self.reported: set[str] = set()
        """Names of sandboxes that the user was told of."""
        self.warned: set[str] = set()
        """Warnings of creations that the user was shown."""
        self.directories = Directories()

    def run(self, provider: _core.Provider) -> _core.Run:
        """The batch's run on `provider`; begins with the first task or sandbox."""
        for run in self.runs:
            if run.belongs_to(provider):
                return run
        self.runs.append(provider.begin_run())
        return self.runs[-1]


_ownerless = Batch()


def current_batch() -> Batch:
    """The batch of the eval under way; one for the process where Inspect owns none (direct use, older Inspect)."""
    try:
        from inspect_ai.util._sandbox.lifecycle import sandbox_lifecycle_state
    except ImportError:
        return _ownerless
    state = sandbox_lifecycle_state()
    return _ownerless if state is None else state.get(Batch)


# What the end of the process may wait for: deletes that a second Ctrl-C interrupted, and a Daytona inside it.
_EXIT_SECONDS = 30.0


@atexit.register
def _finish() -> None:
    """Leaves no sandbox behind, not even where the eval was not allowed to clean up."""
    for name, id in _core.shutdown(_EXIT_SECONDS):
        print(
            f"sandbox {name} may still exist and cost money; delete it with: "
            f"inspect sandbox cleanup daytona {id or name}",
            file=sys.stderr,
        )
