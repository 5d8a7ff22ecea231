"""A Daytona inside this process, for evals, tests and the official SDK."""

from __future__ import annotations

import os
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

from ._bridge import complete
from ._session import _core, _settings


class Statistics(NamedTuple):
    """What a local Daytona has on record of its sandboxes."""

    created: int
    """Created since it started."""
    deleted: int
    """Deleted, or on their way out."""
    left: int
    """In any other state."""


def local_statistics() -> Statistics:
    """The sandboxes of the Daytona inside this process (`DAYTONA_API_URL=local`); zeros if none was started."""
    return Statistics(*(_core.local_statistics() or (0, 0, 0)))


class LocalServer:
    """A local Daytona on a port of its own.

    Use it as an async context manager, on asyncio or trio; every sandbox in it ends with the block::

        async with LocalServer() as server:
            os.environ["DAYTONA_API_URL"] = server.url
            os.environ["DAYTONA_API_KEY"] = server.api_key

    It isolates sandboxes as well as this machine allows (`isolation`). That protects the machine from accidents of the
    code inside; it is no boundary against code that attacks the kernel.

    Args:
        host: Address to listen on; `INSPECT_DAYTONA_LOCAL_HOST` by default, or else loopback.
        port: Port, 0 for a free one; `INSPECT_DAYTONA_LOCAL_PORT` by default, or else a free one.
    """

    def __init__(self, host: str | None = None, port: int | None = None) -> None:
        self._host = host
        self._port = port
        self._server: _core.LocalServer | None = None

    async def __aenter__(self) -> Self:
        start = partial(_core.start_local, _settings(os.environ), self._host, self._port)
        self._server = await complete(start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        import anyio

        with anyio.CancelScope(shield=True):
            await complete(self._running.shutdown)

    @property
    def _running(self) -> _core.LocalServer:
        if self._server is None:
            raise RuntimeError("the local Daytona is not started: use it in an 'async with' block")
        return self._server

    @property
    def url(self) -> str:
        """The API's URL, for `DAYTONA_API_URL`."""
        return self._running.url

    @property
    def api_key(self) -> str:
        """The key, for `DAYTONA_API_KEY`."""
        return self._running.api_key

    @property
    def statistics(self) -> Statistics:
        """The sandboxes on its record."""
        return Statistics(*self._running.statistics())

    @property
    def isolation(self) -> str:
        """How sandboxes are isolated, for example `namespaces/root-idmap`."""
        return self._running.isolation

    @property
    def isolation_lost(self) -> list[str]:
        """What the isolation does not promise on this machine."""
        return self._running.isolation_lost
