"""What this package raises beside the builtins and Inspect's own exceptions.

The exceptions are written here and raised by the native module, so that they have docstrings, attributes and types.
"""

from __future__ import annotations


class DaytonaError(RuntimeError):
    """A Daytona operation failed for a reason that is neither the command's nor the caller's.

    Attributes:
        kind: What went wrong, in snake case: `server`, `transport`, `quota_exceeded`, ….
        sandbox: Name or id of the sandbox concerned, if there was one.
        http_status: Status of the server's answer, if there was one.
    """

    def __init__(
        self, message: str, kind: str, sandbox: str | None = None, http_status: int | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.sandbox = sandbox
        self.http_status = http_status


class DaytonaConfigError(DaytonaError):
    """A setting or a configuration file is wrong or missing; nothing was created."""


class OutputLimitError(DaytonaError):
    """More bytes than the caller's limit; turned into Inspect's `OutputLimitExceededError` where it is known."""
