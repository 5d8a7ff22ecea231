"""What Inspect imports at the start of every eval: registers the provider and loads nothing else."""

from __future__ import annotations

from inspect_ai.util import sandboxenv

from ._environment import DaytonaSandboxEnvironment, warn_of_other_providers

sandboxenv(name="daytona")(DaytonaSandboxEnvironment)
warn_of_other_providers()
