"""The command `inspect-daytona`."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="inspect-daytona", description="Daytona sandboxes for Inspect AI.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser(
        "serve",
        help="run a local Daytona until Ctrl-C",
        description="Runs a local Daytona for evals, the official SDK and anything else that speaks Daytona's API. "
        "The first two lines of output are the settings that its clients need.",
    )
    serve.add_argument(
        "--host", help="address to listen on (default: INSPECT_DAYTONA_LOCAL_HOST, or else 127.0.0.1)"
    )
    serve.add_argument(
        "--port",
        type=int,
        help="port to listen on; 0 takes a free one (default: INSPECT_DAYTONA_LOCAL_PORT, or else 0)",
    )
    config = commands.add_parser(
        "config",
        help="show what a configuration means",
        description="Checks a configuration and prints what an eval would make of it, as JSON. Nothing is created, and "
        "no server is asked. The values of variables are shown.",
    )
    config.add_argument(
        "file",
        nargs="?",
        help="a compose file or Dockerfile (default: the first of those that an eval would find in this directory)",
    )
    config.add_argument(
        "--metadata",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a value of a sample's metadata, for SAMPLE_METADATA_* (repeatable)",
    )
    shell = commands.add_parser(
        "shell",
        help="open a shell in a sandbox",
        description="Opens a shell in a sandbox by ssh, or in a container of one that runs several services, as "
        "Inspect shows it for a sample's sandbox. The settings are the eval's: DAYTONA_API_KEY, DAYTONA_API_URL; a "
        ".env file is read as Inspect reads it.",
    )
    shell.add_argument("sandbox", help="name or id of the sandbox")
    shell.add_argument("--container", help="id or name of the container (default: the sandbox itself)")
    shell.add_argument(
        "--user",
        help="who the shell belongs to (default: the container's own user, or the one that ssh leads to)",
    )
    options = parser.parse_args(arguments)
    if options.command == "shell":
        return _shell(options.sandbox, options.container, options.user)
    if options.command == "config":
        return _config(options.file, options.metadata)
    return _serve(options.host, options.port)


def _config(file: str | None, metadata: Sequence[str]) -> int:
    from ._config import CONFIG_FILES, settings_json
    from ._session import _core
    from .errors import DaytonaError

    wrong = next((pair for pair in metadata if "=" not in pair), None)
    if wrong is not None:
        print(f"inspect-daytona: --metadata takes KEY=VALUE, not {wrong}", file=sys.stderr)
        return 2
    values = dict(pair.split("=", maxsplit=1) for pair in metadata)
    found = file or next((name for name in CONFIG_FILES if Path(name).is_file()), None)
    try:
        print(_core.explain(settings_json(found, str(Path.cwd()), values), None))
    except DaytonaError as ex:
        print(f"inspect-daytona: {ex}", file=sys.stderr)
        return 1
    return 0


def _shell(sandbox: str, container: str | None, user: str | None) -> int:  # noqa: RET503 - exec does not return
    from functools import partial

    import anyio
    from inspect_ai._util.error import PrerequisiteError

    from ._bridge import complete
    from ._session import _core, _settings, connect
    from .errors import DaytonaError

    async def ask() -> str:
        provider = await connect()
        return await complete(partial(provider.ssh_command, sandbox, container, user))

    _load_dotenv()
    if _core.is_local(_settings(os.environ)):
        print(
            "inspect-daytona: a Daytona inside another process cannot be reached: set DAYTONA_API_URL",
            file=sys.stderr,
        )
        return 1
    try:
        command = anyio.run(ask)
    except (DaytonaError, PrerequisiteError) as ex:
        print(f"inspect-daytona: {ex}", file=sys.stderr)
        return 1
    os.execv("/bin/sh", ["sh", "-c", command])  # noqa: S606 - the shell quotes as the server's answer does


def _load_dotenv() -> None:
    """Reads `.env` as Inspect's command line did for the eval, where most people keep their key."""
    try:
        from inspect_ai._util.dotenv import init_dotenv
    except ImportError:
        # Inspect keeps it to itself
        return
    init_dotenv()


def _serve(host: str | None, port: int | None) -> int:
    from inspect_ai._util.error import PrerequisiteError

    from .errors import DaytonaError

    if port is not None and not 0 <= port <= 65535:
        print(f"inspect-daytona: {port} is no port: it must be between 0 and 65535", file=sys.stderr)
        return 2
    try:
        from ._session import _core, _settings

        # the native side waits for Ctrl-C; Python's handler would raise KeyboardInterrupt on top of it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _core.serve(_settings(os.environ), host, port, _announce)
    except (DaytonaError, PrerequisiteError) as ex:
        print(f"inspect-daytona: {ex}", file=sys.stderr)
        return 1
    return 0


def _announce(url: str, api_key: str, isolation: str, lost: list[str]) -> None:
    print(f"export DAYTONA_API_URL={shlex.quote(url)}")
    print(f"export DAYTONA_API_KEY={shlex.quote(api_key)}", flush=True)
    print(f"Local Daytona is ready. Sandboxes are isolated by {isolation}. Ctrl-C ends it.", file=sys.stderr)
    for sentence in lost:
        print(f"Not promised here: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
