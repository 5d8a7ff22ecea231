"""What a sample is told while its sandbox is created: in its own log, and once for all samples on the console."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from inspect_ai._util.trace import trace_message
from inspect_ai.log import transcript

from . import _trace

logger = logging.getLogger(__name__)

SOURCE = "daytona"


class Notes:
    """Takes the notes of one creation, until its block ends.

    Args:
        sandbox: Name of the sandbox.
        known: Warnings that the console has shown; those of this creation are added.
    """

    def __init__(self, sandbox: str, known: set[str]) -> None:
        self._sandbox = sandbox
        self._known = known
        self._wanted = False

    def __enter__(self) -> Self:
        self._wanted = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # the transcript of a sample that has ended takes no more
        self._wanted = False

    def take(self, is_warning: bool, line: str) -> None:
        """Takes a note. To be called in the context of the sample's task."""
        if not self._wanted:
            return
        if is_warning and line not in self._known:
            self._known.add(line)
            # Inspect copies it into the transcript
            logger.warning(line)
            return
        # progress; or a warning that another sample had, and this one's log must have too
        transcript().info(line, source=SOURCE)
        if not is_warning:
            trace_message(_trace.logger, "Daytona", "%s: %s", self._sandbox, line)
