"""The demonstration, as `make demo` runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from exchange import missing
from local_daytona import LIMIT_SECONDS, clean_environment, command_lines, run, wait_until

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def test_the_demo_scores_as_expected_and_leaves_nothing(tmp_path: Path) -> None:
    done = run(str(DEMO), directory=tmp_path, seconds=170)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "result: success, 14 samples, accuracy 0.857" in done.stdout
    assert "sandboxes: 14 created, 14 deleted, 0 left" in done.stdout
    reason = missing()
    if reason is None:
        assert "result: success, 2 samples, accuracy 0.500" in done.stdout
        assert "sandboxes: 2 created, 2 deleted, 0 left" in done.stdout
    else:
        assert done.stdout.endswith(f" is skipped: {reason}.\n")


def test_without_docker_the_second_eval_is_skipped_with_a_sentence(tmp_path: Path) -> None:
    script = "import sys, exchange; sys.exit(exchange.missing())"
    done = run(
        "-c", script, variables={"PATH": str(tmp_path), "PYTHONPATH": str(DEMO.parent)}, directory=tmp_path
    )
    assert done.returncode == 1
    assert "it needs root" in done.stderr if os.geteuid() else "apt-get install docker.io" in done.stderr


def test_ctrl_c_ends_the_demo_with_nothing_left(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with (
        output.open("w") as file,
        subprocess.Popen(
            [sys.executable, "-u", str(DEMO)],
            cwd=tmp_path,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            wait_until(lambda: an_agent_runs_tests() or process.poll() is not None, "an agent runs tests")
            process.send_signal(signal.SIGINT)
            process.wait(LIMIT_SECONDS)
        finally:
            process.kill()
    text = output.read_text()
    assert process.returncode != 0, text
    assert ", 0 left" in text


def an_agent_runs_tests() -> bool:
    """Whether a sandbox of the demo runs its tests."""
    return any("unittest" in words and "--start-directory" in words for words in command_lines())
