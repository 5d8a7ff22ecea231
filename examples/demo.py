"""Runs the evals of bugfix.py and exchange.py in sandboxes of a local Daytona: no account, no network. For `make demo`.

Ends with 0 if every sample scored as it must and no sandbox is left.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Mapping

# Before Inspect is imported: the evals below must not meet the caller's account, nor spend on it.
os.environ["DAYTONA_API_URL"] = "local"

import inspect_ai
from inspect_ai import Task
from inspect_ai.log import EvalLog

import scripted_model  # noqa: F401 - registers the model
from bugfix import bugfix, load_bugs
from exchange import FAULTS, exchange, missing, project
from inspect_daytona import local_statistics


def main() -> int:
    """Runs the evals and says what happened; returns the exit status."""
    # in each, some are not repaired, on purpose, and must not count
    status = run("bugfix", bugfix(), {bug.name: bug.solved for bug in load_bugs().values()})
    if status != 0:
        return status
    print()
    lacking = missing()
    if lacking is not None:
        print(f"The second eval, which has several services, is skipped: {lacking}.")
        return 0
    directory = project()
    try:
        return run("exchange", exchange(directory), {fault.name: fault.solved for fault in FAULTS.values()})
    finally:
        shutil.rmtree(directory)


def run(name: str, task: Task, solved: Mapping[str, bool]) -> int:
    """Runs one eval; `solved` are the samples that must score. Returns the exit status."""
    started = time.monotonic()
    before = local_statistics()
    log: EvalLog | None = None
    try:
        [log] = inspect_ai.eval(
            task,
            model=f"scripted/{name}",
            display="rich" if sys.stdout.isatty() else "plain",
            log_dir="logs",
        )
    finally:
        # also after Ctrl-C
        clean = report(log, time.monotonic() - started, before)
    if log.status == "cancelled":
        return 130
    return 0 if clean and as_expected(log, solved) else 1


def report(log: EvalLog | None, seconds: float, before: tuple[int, ...]) -> bool:
    """Prints the result and what the local Daytona has on record since `before`; whether nothing is left."""
    if log is not None and log.results is not None:
        accuracy = log.results.scores[0].metrics["accuracy"].value
        print(f"result: {log.status}, {log.results.completed_samples} samples, accuracy {accuracy:.3f}")
    print(f"wall time: {seconds:.1f} s")
    created, deleted, left = (now - then for now, then in zip(local_statistics(), before, strict=True))
    print(f"sandboxes: {created} created, {deleted} deleted, {left} left")
    return created > 0 and left == 0


def as_expected(log: EvalLog, solved: Mapping[str, bool]) -> bool:
    """Whether the samples scored as they must."""
    expected = {name: "C" if right else "I" for name, right in solved.items()}
    scores = {str(sample.id): sample.scores for sample in log.samples or []}
    found = {
        name: score.value for name, by_scorer in scores.items() if by_scorer for score in by_scorer.values()
    }
    for name, score in expected.items():
        if found.get(name) != score:
            print(f"{name}: expected {score}, got {found.get(name, 'no score')}")
    return log.status == "success" and found == expected


if __name__ == "__main__":
    sys.exit(main())
