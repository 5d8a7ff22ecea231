"""Configurations that Inspect hands over, as the text that the native module reads."""

from __future__ import annotations

import json
import os.path
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inspect_ai.util import ComposeConfig, SandboxEnvironmentConfigType
from pydantic import BaseModel, ConfigDict

from .errors import DaytonaConfigError

CONFIG_FILES = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml", "Dockerfile"]
"""The names that are looked for in a task's directory, in this order."""


class DaytonaConfig(BaseModel):
    """The settings of `x-daytona`, for tasks that need no compose file.

    Use it as `SandboxEnvironmentSpec("daytona", DaytonaConfig(snapshot="my-snapshot"))`. Every key that a compose file
    may have under `x-daytona` is a field here, with the same units, defaults and checks; see the documentation of
    the configuration. Unset fields keep their defaults.
    """

    # The native module knows the settings and names the nearest one to a misspelt one; a second list here would drift.
    model_config = ConfigDict(frozen=True, extra="allow")

    def __hash__(self) -> int:
        # Inspect keeps configurations in sets, and settings may hold dicts, which have no hash
        return hash(self.model_dump_json())


def settings_json(
    config: SandboxEnvironmentConfigType | None, directory: str, metadata: Mapping[str, Any] | None = None
) -> str:
    """The configuration as JSON for the native module.

    Args:
        config: As Inspect hands it over.
        directory: The task's directory, where relative paths start.
        metadata: The sample's metadata, for `SAMPLE_METADATA_*` in a compose file.

    Raises:
        DaytonaConfigError: If it is of a type that this provider does not know.
    """
    source: str | dict[str, Any]
    match config:
        case None:
            source = "none"
        case str():
            source = {"path": config}
        case ComposeConfig():
            source = {"model": config.model_dump(mode="json", by_alias=True, exclude_none=True)}
        case DaytonaConfig():
            source = {"settings": config.model_dump(mode="json", exclude_none=True)}
        case _:
            raise DaytonaConfigError(
                f"a configuration of type {type(config).__name__} is not one for Daytona: use None, a path to a "
                "Dockerfile or compose file, ComposeConfig or DaytonaConfig",
                "invalid_config",
            )
    texts = {str(key): str(value) for key, value in (metadata or {}).items()}
    return json.dumps({"source": source, "directory": directory, "metadata": texts})


class Directories:
    """Where the relative paths of a batch's configurations start.

    Inspect calls `task_init` in the task's directory and `sample_init` in the directory that the eval was started in,
    with the same configuration and without a word of the task. So two tasks of a batch cannot each have a meaning of
    their own for one.
    """

    def __init__(self) -> None:
        self._by_config: dict[str | ComposeConfig, str] = {}

    def remember(self, config: SandboxEnvironmentConfigType | None) -> str:
        """Notes the current directory for `config`, and returns it.

        Raises:
            DaytonaConfigError: If the paths of `config` start elsewhere already, so that samples of one task would run
                in the environment of another.
        """
        directory = str(Path.cwd())
        if isinstance(config, str | ComposeConfig):
            known = self._by_config.setdefault(config, directory)
            if known != directory and _has_relative_paths(config):
                raise DaytonaConfigError(_ambiguity(config, [known, directory]), "invalid_config")
        return directory

    def of(self, config: SandboxEnvironmentConfigType | None) -> str:
        """The directory of `config`; the current one where none was noted."""
        here = str(Path.cwd())
        return self._by_config.get(config, here) if isinstance(config, str | ComposeConfig) else here

    def forget(self) -> None:
        """Forgets them all: no sample uses them any more."""
        self._by_config.clear()


def _ambiguity(config: str | ComposeConfig, directories: list[str]) -> str:
    if isinstance(config, str):
        meanings = " or ".join(os.path.normpath(Path(directory, config)) for directory in directories)
        what = f"the sandbox configuration {config} of a sample means {meanings}"
    else:
        what = f"the relative paths of a sample's ComposeConfig start in {' or '.join(directories)}"
    return (
        f"{what}, depending on the task, and Inspect does not say whose samples they are: write absolute paths, for "
        'example str(Path(__file__).parent / "compose.yaml"), or run the tasks one after the other'
    )


def _has_relative_paths(config: str | ComposeConfig) -> bool:
    """Whether a configuration may mean another file in another directory."""
    if isinstance(config, str):
        return not Path(config).is_absolute()
    model = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    volumes = [volume for service in _mappings(model, "services") for volume in service.get("volumes", [])]
    sources = [
        str(volume.get("source", "/")) if volume.get("type") == "bind" else "/"
        for volume in volumes
        if isinstance(volume, dict)
    ]
    return (
        any({"build", "env_file"} & service.keys() for service in _mappings(model, "services"))
        or any("driver_opts" in volume for volume in _mappings(model, "volumes"))
        or any(volume.startswith(".") for volume in volumes if isinstance(volume, str))
        or any(not source.startswith(("/", "~")) for source in sources)
    )


def _mappings(model: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    section = model.get(name)
    return [item for item in section.values() if isinstance(item, dict)] if isinstance(section, dict) else []
