"""The native module. Its interface is private to this package and may change at any time.

Functions that take `on_done` start an operation; `on_done(value, None)` or `on_done(None, exception)` is called once,
from a thread of the module. `Operation[T]` says that the value is a `T`.
"""

from collections.abc import Callable
from typing import Generic, TypeVar, final

from inspect_daytona._bridge import Callback

_T_co = TypeVar("_T_co", covariant=True)

__all__ = [
    "LocalServer",
    "Operation",
    "Provider",
    "Run",
    "Sandbox",
    "__version__",
    "connect",
    "explain",
    "is_local",
    "local_statistics",
    "serve",
    "shutdown",
    "start_local",
    "task_environment",
]
__version__: str

@final
class Operation(Generic[_T_co]):
    """An operation under way. `abort` ends it if it still runs; it never blocks and may be called at any time."""

    def abort(self) -> None: ...

@final
class Provider:
    @property
    def api_url(self) -> str: ...
    @property
    def isolation(self) -> str | None: ...
    @property
    def isolation_lost(self) -> list[str]: ...
    def begin_run(self) -> Run: ...
    def check(self, settings: str, on_done: Callback) -> Operation[list[str]]: ...  # warnings
    def expect_prebuilt(self, settings: str, on_done: Callback) -> Operation[None]: ...
    def prepare(
        self, settings: str, on_progress: Callable[[str], object], on_done: Callback
    ) -> Operation[None]: ...
    def ssh_command(
        self, sandbox: str, container: str | None, user: str | None, on_done: Callback
    ) -> Operation[str]: ...
    def find_sandboxes(
        self, id_or_name: str | None, on_done: Callback
    ) -> Operation[list[tuple[str, str, str, str, str]]]: ...  # id, name, state, created, run
    def delete_sandboxes(
        self, ids: list[str], on_done: Callback
    ) -> Operation[list[tuple[str, str]]]: ...  # id and reason of failures

@final
class Run:
    @property
    def id(self) -> str: ...
    @property
    def is_local(self) -> bool: ...
    @property
    def created(self) -> int: ...
    @property
    def deleted(self) -> int: ...
    def belongs_to(self, provider: Provider) -> bool: ...
    @staticmethod
    def sandbox_name(task: str | None, sample: str | None) -> str: ...
    def create(
        self, name: str, settings: str, on_note: Callable[[bool, str], object], on_done: Callback
    ) -> Operation[list[Sandbox]]: ...
    def abandon(self, name: str) -> None: ...
    def finish(self, cleanup: bool, on_done: Callback) -> Operation[list[tuple[str, str | None, str]]]: ...
    def left(self) -> list[tuple[str, str | None, str]]: ...  # name, id, reason

@final
class Sandbox:
    @property
    def service(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def is_deleted(self) -> bool: ...
    def connection_command(self, user: str | None) -> str | None: ...
    def exec(
        self,
        argv: list[str],
        input: bytes | None,
        cwd: str | None,
        env: dict[str, str],
        user: str | None,
        timeout: float | None,
        output_limit: int,
        on_done: Callback,
    ) -> Operation[tuple[int, str, str, bool]]: ...  # returncode, stdout, stderr, timed_out
    def write_file(self, path: str, contents: bytes, on_done: Callback) -> Operation[None]: ...
    def read_file(self, path: str, limit: int, on_done: Callback) -> Operation[bytes]: ...
    def delete(self, on_done: Callback) -> Operation[None]: ...

@final
class LocalServer:
    @property
    def url(self) -> str: ...
    @property
    def api_key(self) -> str: ...
    @property
    def isolation(self) -> str: ...
    @property
    def isolation_lost(self) -> list[str]: ...
    def statistics(self) -> tuple[int, int, int]: ...
    def shutdown(self, on_done: Callback) -> Operation[None]: ...

def connect(environ: dict[str, str], on_done: Callback) -> Operation[Provider]: ...
def is_local(environ: dict[str, str]) -> bool: ...
def explain(settings: str, environ: dict[str, str] | None) -> str: ...
def task_environment(settings: str) -> dict[str, str]: ...
def start_local(
    environ: dict[str, str], host: str | None, port: int | None, on_done: Callback
) -> Operation[LocalServer]: ...
def local_statistics() -> tuple[int, int, int] | None: ...
def serve(
    environ: dict[str, str],
    host: str | None,
    port: int | None,
    on_ready: Callable[[str, str, str, list[str]], object],
) -> None: ...
def shutdown(seconds: float) -> list[tuple[str, str | None]]: ...
