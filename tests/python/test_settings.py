"""Every wrong setting has one message that says what to do, before anything starts or costs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import pytest
from inspect_ai._util.error import PrerequisiteError
from inspect_ai.util import SandboxEnvironmentConfigType
from inspect_ai.util._sandbox.lifecycle import sandbox_lifecycle_scope

from conftest import BACKEND
from inspect_daytona import DaytonaConfig, DaytonaSandboxEnvironment
from local_daytona import LIMIT_SECONDS, LocalDaytona, run, serve

Provider = DaytonaSandboxEnvironment


def start_a_sample(config: SandboxEnvironmentConfigType | None = None) -> None:
    """What Inspect does up to the first sandbox."""

    async def start() -> None:
        with sandbox_lifecycle_scope():
            await Provider.task_init("startup", config)
            environments = await Provider.sample_init("task", config, {})
            await Provider.sample_cleanup("task", config, environments, interrupted=False)

    anyio.run(start, backend=BACKEND)


def refusal(config: SandboxEnvironmentConfigType | None = None) -> str:
    """The message of a task that cannot start."""
    with pytest.raises(PrerequisiteError) as raised:
        start_a_sample(config)
    message = str(raised.value.message)
    assert "\n" not in message
    return message


def test_without_a_key_the_message_says_how_to_get_one_and_how_to_run_locally() -> None:
    message = refusal()
    assert "DAYTONA_API_KEY" in message
    assert "DAYTONA_API_URL=local" in message


def test_a_key_of_spaces_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYTONA_API_KEY", "  ")
    assert "DAYTONA_API_KEY" in refusal()


def test_a_token_needs_its_organization(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYTONA_JWT_TOKEN", "token")
    assert "DAYTONA_ORGANIZATION_ID" in refusal()


def test_a_wrong_key_is_refused_and_never_repeated(
    daytona: LocalDaytona, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAYTONA_API_KEY", "dtn_wrong_secret")
    message = refusal()
    assert "DAYTONA_API_KEY" in message
    assert "dtn_wrong_secret" not in message
    # a refused key is not tried again
    assert daytona.requests("GET") == 1


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as unused:
        port = unused.server_port
    monkeypatch.setenv("DAYTONA_API_URL", f"http://127.0.0.1:{port}/api")
    monkeypatch.setenv("DAYTONA_API_KEY", "dtn_some_secret")
    message = refusal()
    assert f"127.0.0.1:{port}" in message
    assert "DAYTONA_API_URL" in message
    assert "dtn_some_secret" not in message


@pytest.mark.parametrize(
    "url", ["app.daytona.io/api", "ftp://example.org/api", "https://me:hunter2@example.org/api"]
)
def test_a_url_that_cannot_be_meant_is_refused_without_repeating_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAYTONA_API_URL", url)
    monkeypatch.setenv("DAYTONA_API_KEY", "key")
    message = refusal()
    assert "DAYTONA_API_URL" in message
    assert "hunter2" not in message


class WebSite(BaseHTTPRequestHandler):
    """Something on the web that is not Daytona."""

    status = 200

    def do_GET(self) -> None:
        body = b"<!DOCTYPE html><html><body>Welcome</body></html>"
        self.send_response(self.status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(params=[200, 404])
def web_site(request: pytest.FixtureRequest) -> Iterator[str]:
    handler = type("Handler", (WebSite,), {"status": request.param})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()
        thread.join(LIMIT_SECONDS)


def test_a_server_that_is_not_daytona_is_recognised(web_site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAYTONA_API_URL", web_site)
    monkeypatch.setenv("DAYTONA_API_KEY", "key")
    message = refusal()
    assert "DAYTONA_API_URL" in message
    assert "/api" in message


def test_an_unknown_snapshot_is_named_before_anything_is_created(daytona: LocalDaytona) -> None:
    with pytest.raises(Exception, match="no-such-snapshot"):
        start_a_sample(DaytonaConfig(snapshot="no-such-snapshot"))  # type: ignore[call-arg]
    assert daytona.names() == []


def test_an_unknown_setting_is_refused(daytona: LocalDaytona) -> None:
    message = refusal(DaytonaConfig(snapshott="x"))  # type: ignore[call-arg]
    assert "snapshott" in message
    assert daytona.requests("POST", "/api/sandbox") == 0


def test_a_sandbox_that_can_never_fit_the_quota_fails_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(CPU="2", MAX_CPU="1") as server:
        server.connect(monkeypatch)
        with pytest.raises(Exception, match=r"(?i)cpu") as raised:
            start_a_sample()
        assert "1" in str(raised.value)
        assert server.requests("POST", "/api/sandbox") == 1
        assert server.names() == []


def test_the_command_line_shows_the_message_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "from inspect_ai import Task, task\n@task\ndef empty():\n    return Task(sandbox='daytona')\n"
    )
    arguments = ["-m", "inspect_ai", "eval", "task.py", "--model", "mockllm/model"]
    variables = {"INSPECT_DISPLAY": "plain", "COLUMNS": "250"}
    done = run(*arguments, variables=variables, directory=tmp_path, seconds=120)
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "DAYTONA_API_KEY is not set" in said
    assert "DAYTONA_API_URL=local" in said
    assert "Traceback" not in said
