"""What `inspect trace` shows of this provider."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence

# Inspect gives its traces to the loggers below its own name alone, whatever the log level, and keeps them from the
# handlers of others. A level on a logger of ours would send every command to any handler that a host's root logger has.
logger = logging.getLogger("inspect_ai.sandbox.daytona")

# Inspect's level for what it traces, and about how much of a command a trace needs.
TRACE = 13
LONGEST_TRACE = 1000


def is_traced() -> bool:
    """Whether anybody would see a trace."""
    return logger.isEnabledFor(TRACE)


def shown(words: Sequence[str]) -> str:
    """A command or path as a trace tells it."""
    # few of them, and little of each: a word may be a file of megabytes
    return shlex.join(word[:LONGEST_TRACE] for word in words[:LONGEST_TRACE])[:LONGEST_TRACE]
