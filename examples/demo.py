"""Runs the eval of bugfix.py in sandboxes of a local Daytona: no account, no network. `make demo` calls it.

Ends with 0 if every sample scored as it must and no sandbox is left.
"""

from __future__ import annotations

import os
import sys
import time

# Before Inspect is imported: the eval below must not meet the caller's account, nor spend on it.
os.environ["DAYTONA_API_URL"] = "local"

import inspect_ai
from inspect_ai.log import EvalLog

import scripted_model  # noqa: F401 - registers the model
from bugfix import bugfix, load_bugs
from inspect_daytona import local_statistics


def main() -> int:
    """Runs the eval and says what happened; returns the exit status."""
    started = time.monotonic()
    log: EvalLog | None = None
    try:
        [log] = inspect_ai.eval(
            bugfix(),
            model="scripted/bugfix",
            display="rich" if sys.stdout.isatty() else "plain",
            log_dir="logs",
        )
    finally:
        # also after Ctrl-C
        clean = report(log, time.monotonic() - started)
    if log.status == "cancelled":
        return 130
    return 0 if clean and as_expected(log) else 1


def report(log: EvalLog | None, seconds: float) -> bool:
    """Prints the result and what the local Daytona has on record; whether nothing is left."""
    if log is not None and log.results is not None:
        accuracy = log.results.scores[0].metrics["accuracy"].value
        print(f"result: {log.status}, {log.results.completed_samples} samples, accuracy {accuracy:.3f}")
    print(f"wall time: {seconds:.1f} s")
    statistics = local_statistics()
    print(f"sandboxes: {statistics.created} created, {statistics.deleted} deleted, {statistics.left} left")
    return statistics.created > 0 and statistics.left == 0


def as_expected(log: EvalLog) -> bool:
    """Whether the samples scored as they must: two of the bugs are not repaired, on purpose, and must not count."""
    expected = {bug.name: "C" if bug.solved else "I" for bug in load_bugs().values()}
    scores = {str(sample.id): sample.scores for sample in log.samples or []}
    found = {name: by_scorer["tests_pass"].value for name, by_scorer in scores.items() if by_scorer}
    for name, score in expected.items():
        if found.get(name) != score:
            print(f"{name}: expected {score}, got {found.get(name, 'no score')}")
    return log.status == "success" and found == expected


if __name__ == "__main__":
    sys.exit(main())
