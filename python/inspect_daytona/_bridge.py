"""Awaits an operation of the native module, on asyncio and on trio.

The native side owns its threads and knows no event loop: it calls back once, and the callback wakes the waiting task
through the loop's own thread-safe scheduling. Measured at 30–40 µs per call, on both backends.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import anyio
import anyio.lowlevel

if TYPE_CHECKING:
    from ._core import Operation

T = TypeVar("T")
P = ParamSpec("P")

Callback = Callable[[Any, BaseException | None], None]


async def complete(start: Callable[[Callback], Operation[T]]) -> T:
    """Starts an operation and waits for its result.

    If this task is cancelled the operation is aborted, which also starts what makes up for it: a running command is
    killed, a sandbox under creation is deleted.

    Args:
        start: Starts the operation; gets the callback that ends it with a value or an exception.

    Returns:
        The operation's value.
    """
    done = anyio.Event()
    outcome: list[tuple[Any, BaseException | None]] = []
    schedule = _thread_safe_scheduler()

    def on_done(value: Any, error: BaseException | None) -> None:
        outcome.append((value, error))
        try:
            schedule(done.set)
        except RuntimeError:
            # the loop is closed: nobody waits any more
            pass

    operation = start(on_done)
    try:
        await done.wait()
    except BaseException:
        operation.abort()
        raise
    value, error = outcome[0]
    if error is not None:
        raise error
    result: T = value
    return result


def from_any_thread(function: Callable[P, object]) -> Callable[P, None]:
    """`function` for a thread of the native module to call: it runs in this task's event loop, and nobody waits.

    It sees this task's context variables, by which Inspect knows whose transcript something belongs to.
    """
    schedule = _thread_safe_scheduler()
    context = copy_context()

    def call(*arguments: P.args, **keywords: P.kwargs) -> None:
        try:
            schedule(partial(context.run, function, *arguments, **keywords))
        except RuntimeError:
            # the loop is closed: nobody listens any more
            pass

    return call


def _thread_safe_scheduler() -> Callable[[Callable[[], Any]], Any]:
    token = anyio.lowlevel.current_token().native_token
    # the first is asyncio's, the second trio's
    name = "call_soon_threadsafe" if hasattr(token, "call_soon_threadsafe") else "run_sync_soon"
    schedule: Callable[[Callable[[], Any]], Any] = getattr(token, name)
    return schedule
