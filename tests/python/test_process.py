"""What the native module does to the process it lives in: from its first use to the interpreter's end."""

from __future__ import annotations

import subprocess
from pathlib import Path

from local_daytona import run

# Waits for an operation without an event loop.
PREAMBLE = """\
import threading, types, sys
from inspect_daytona import _core

def complete(start):
    done, outcome = threading.Event(), []
    start(lambda value, error: (outcome.append((value, error)), done.set()))
    assert done.wait(30), "nobody called back"
    return outcome[0]
"""


def run_script(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a script in a process of its own."""
    return run("-c", PREAMBLE + script, directory=folder)


def test_a_panic_on_the_way_to_python_fails_one_operation_and_no_other(tmp_path: Path) -> None:
    script = """

sys.modules["inspect_daytona.errors"] = types.ModuleType("inspect_daytona.errors")
value, error = complete(lambda done: _core.connect({}, done))
assert value is None and "panic" in str(error), error
value, error = complete(lambda done: _core.connect({"DAYTONA_API_KEY": "k"}, done))
assert error is None and isinstance(value, _core.Provider), error
"""
    done = run_script(script, tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_interpreter_ends_cleanly_while_operations_run_and_log(tmp_path: Path) -> None:
    # an address that refuses connections, so that every attempt is a debug record of some worker
    script = """
import logging, atexit
logging.basicConfig(level=logging.DEBUG, filename="log")
atexit.register(_core.shutdown, 0.0)
provider, error = complete(lambda done: _core.connect(
    {"DAYTONA_API_KEY": "k", "DAYTONA_API_URL": "http://127.0.0.1:1/api"}, done))
assert error is None
running = [provider.find_sandboxes(None, lambda value, error: None) for _ in range(200)]
"""
    for _ in range(5):
        done = run_script(script, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    assert "127.0.0.1" in (tmp_path / "log").read_text()


def test_operations_are_refused_after_the_exit_handlers(tmp_path: Path) -> None:
    script = """
complete(lambda done: _core.connect({"DAYTONA_API_KEY": "k"}, done))
_core.shutdown(0.0)
try:
    _core.connect({"DAYTONA_API_KEY": "k"}, lambda value, error: None)
except RuntimeError as ex:
    print(ex)
"""
    done = run_script(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ended" in done.stdout


def test_settings_are_those_of_the_environment_at_the_call(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {default: {image: debian, cpus: '${TEST_CPUS}'}}")
    script = """
import json, os
from inspect_daytona.errors import DaytonaConfigError
provider, _ = complete(lambda done: _core.connect(
    {"DAYTONA_API_KEY": "k", "DAYTONA_API_URL": "http://127.0.0.1:1/api"}, done))
settings = json.dumps({"source": {"path": os.path.abspath("compose.yaml")}, "directory": os.getcwd()})
run = provider.begin_run()
for start in [provider.check, lambda *rest: provider.prepare(*rest[:1], print, *rest[1:]),
              lambda *rest: run.create("inspect-a", *rest[:1], print, *rest[1:])]:
    os.environ["TEST_CPUS"] = "many"
    try:
        start(settings, lambda value, error: None)
    except DaytonaConfigError as ex:
        print(ex)
    os.environ["TEST_CPUS"] = "1"
    start(settings, lambda value, error: None).abort()
"""
    done = run_script(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cpus") == 3, done.stdout


def test_as_many_files_may_be_open_as_the_machine_allows(tmp_path: Path) -> None:
    script = """
import resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
complete(lambda done: _core.connect({"DAYTONA_API_KEY": "k"}, done))
wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, hard)
"""
    done = run_script(script, tmp_path)
    assert done.returncode == 0, done.stderr
