"""A local Daytona as a process of its own, and its API as the tests call it: plain HTTP, none of our code."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# Guards against hangs; nothing here is expected to take long.
LIMIT_SECONDS = 60.0


@dataclass
class LocalDaytona:
    """`inspect-daytona serve` under test."""

    process: subprocess.Popen[str]
    url: str
    api_key: str = field(repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to know."""
        return {"DAYTONA_API_URL": self.url, "DAYTONA_API_KEY": self.api_key}

    def connect(self, patch: pytest.MonkeyPatch) -> None:
        """Makes it the Daytona of this process."""
        for name, value in self.environment.items():
            patch.setenv(name, value)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """An API call; the decoded answer."""
        request = urllib.request.Request(  # noqa: S310 - the URL is the server's own
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.api_key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text else None

    def sandboxes(self) -> list[dict[str, Any]]:
        """All sandboxes that are not being deleted."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            query = {"limit": "200", "sort": "createdAt"}
            if cursor:
                query["cursor"] = cursor
            page = self.call("GET", "/sandbox?" + urllib.parse.urlencode(query))
            found += [item for item in page["items"] if item["state"] not in {"destroying", "destroyed"}]
            cursor = page.get("nextCursor")
            if not cursor:
                return found

    def names(self) -> list[str]:
        """Names of all sandboxes that are not being deleted."""
        return sorted(sandbox["name"] for sandbox in self.sandboxes())

    def create(self, name: str, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
        """A sandbox, with the labels of an eval's if none are given."""
        mark = {"created_by": "inspect-ai", "inspect_run_id": "0123"} if labels is None else labels
        sandbox: dict[str, Any] = self.call("POST", "/sandbox", {"name": name, "labels": mark})
        return sandbox

    def delete_all(self) -> None:
        """Deletes every sandbox."""
        for sandbox in self.sandboxes():
            try:
                self.call("DELETE", f"/sandbox/{sandbox['id']}")
            except urllib.error.HTTPError as ex:
                # another delete was quicker
                if ex.code not in {404, 409}:
                    raise
        wait_until(lambda: not self.sandboxes(), "all sandboxes are deleted")

    def fault(self, method: str, path: str, kind: str, **rule: object) -> None:
        """Makes requests fail; `times`, `delayMilliseconds` and the fault's own fields are keywords."""
        body: dict[str, object] = {"method": method, "path": path}
        for key in ("times", "delayMilliseconds"):
            if key in rule:
                body[key] = rule.pop(key)
        self.call("POST", "/admin/faults", {**body, "fault": {"kind": kind} | rule})

    def reset(self) -> None:
        """Ends all faults and counts requests from zero."""
        self.call("DELETE", "/admin/faults")
        self.call("DELETE", "/admin/requests")

    def requests(self, method: str, contains: str = "") -> int:
        """How many requests arrived since the last reset, by method and a part of their route."""
        counts: dict[str, int] = self.call("GET", "/admin/requests")
        return sum(
            count
            for route, count in counts.items()
            if route.startswith(method + " ") and contains in route and "/admin/" not in route
        )

    def stop(self, with_signal: signal.Signals = signal.SIGTERM) -> int:
        """Ends the server; its exit status."""
        self.process.send_signal(with_signal)
        return self.process.wait(LIMIT_SECONDS)


def clean_environment(**variables: str) -> dict[str, str]:
    """This process's environment without the caller's account, plus `variables`."""
    ours = ("DAYTONA_", "INSPECT_DAYTONA_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | variables


def run(
    *arguments: str,
    variables: Mapping[str, str] | None = None,
    directory: Path | None = None,
    seconds: float = LIMIT_SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Runs Python with `arguments` to its end, without a terminal, an account or an expectation."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env=clean_environment(**(variables or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@contextmanager
def serve(**variables: str) -> Iterator[LocalDaytona]:
    """Runs a server; `variables` are settings without `INSPECT_DAYTONA_LOCAL_`. Nothing of it is left afterwards."""
    settings = {f"INSPECT_DAYTONA_LOCAL_{name}": value for name, value in variables.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "inspect_daytona", "serve"],
        env=clean_environment(**settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        url = exported("DAYTONA_API_URL", process.stdout.readline())
        api_key = exported("DAYTONA_API_KEY", process.stdout.readline())
        yield LocalDaytona(process, url, api_key)
    finally:
        process.terminate()
        try:
            process.wait(LIMIT_SECONDS)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def exported(name: str, line: str) -> str:
    """The value of a line `export NAME=value`, as a shell reads it."""
    words = shlex.split(line)
    assert len(words) == 2, f"the server did not start: {line!r}"
    assert words[0] == "export"
    variable, _, value = words[1].partition("=")
    assert variable == name
    return value


def wait_until(condition: Callable[[], bool], what: str, seconds: float = LIMIT_SECONDS) -> None:
    """Waits for a condition, and fails saying which after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def command_lines() -> list[list[str]]:
    """The command lines of all processes on this machine, sandboxes included."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text(errors="replace").rstrip("\0").split("\0"))
        except OSError:
            # it ended meanwhile
            continue
    return found
