"""Daytona sandboxes for Inspect AI: `sandbox="daytona"`.

Importing this package costs next to nothing; the native module is loaded when a sandbox is first needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._config import DaytonaConfig as DaytonaConfig
    from ._environment import DaytonaSandboxEnvironment as DaytonaSandboxEnvironment
    from ._local import LocalServer as LocalServer
    from ._local import Statistics as Statistics
    from ._local import local_statistics as local_statistics

__all__ = ["DaytonaConfig", "DaytonaSandboxEnvironment", "LocalServer", "Statistics", "local_statistics"]

_HOMES = {
    "DaytonaConfig": "_config",
    "DaytonaSandboxEnvironment": "_environment",
    "LocalServer": "_local",
    "Statistics": "_local",
    "local_statistics": "_local",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
