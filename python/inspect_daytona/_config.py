"""Configurations that Inspect hands over, as the text that the native module reads."""

from __future__ import annotations

import json
import os.path
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from inspect_ai.util import ComposeConfig, SandboxEnvironmentConfigType
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer, model_validator

from .errors import DaytonaConfigError

CONFIG_FILES = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml", "Dockerfile"]
"""The names that are looked for in a task's directory, in this order."""


# How a configuration without any setting is written.
_NO_SETTINGS = {"provider": "daytona"}


class DaytonaConfig(BaseModel):
    """The settings of `x-daytona`, for tasks that need no compose file.

    Use it as `SandboxEnvironmentSpec("daytona", DaytonaConfig(snapshot="my-snapshot"))`. Every key that a compose file
    may have under `x-daytona` is a field here, with the same units, defaults and checks; see the documentation of
    the configuration. Unset fields keep their defaults.
    """

    # The native module knows the settings and names the nearest one to a misspelt one; a second list here would drift.
    model_config = ConfigDict(frozen=True, extra="allow")

    @model_serializer(mode="wrap")
    def _never_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Inspect leaves out what is None, and an empty dict in a log does not become an object again when it is read
        settings: dict[str, Any] = serialize(self)
        return settings if any(value is not None for value in settings.values()) else dict(_NO_SETTINGS)

    @model_validator(mode="before")
    @classmethod
    def _read_empty(cls, settings: Any) -> Any:
        return {} if settings == _NO_SETTINGS else settings

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
            settings = config.model_dump(mode="json", exclude_none=True)
            source = {"settings": {} if settings == _NO_SETTINGS else settings}
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
            if known != directory and _differs(config, known, directory):
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


def _differs(config: str | ComposeConfig, *directories: str) -> bool:
    """Whether a configuration means something else in each of these directories."""
    if isinstance(config, ComposeConfig):
        return any(map(_is_relative, _paths(config)))
    paths = [os.path.join(directory, config) for directory in directories]  # noqa: PTH118 - a Path would drop `..`s
    # links may make one file of two, whose own relative paths start where they lie, or two of what reads the same
    return len({os.path.normpath(path) for path in paths}) > 1 or len(set(map(os.path.realpath, paths))) > 1


# What is fetched from elsewhere, or starts in no directory.
_ABSOLUTE = ("/", "~", "http://", "https://", "git://", "ssh://", "git@", "github.com/", "docker-image://")


def _is_relative(path: str) -> bool:
    # one that starts with a variable may be
    return not path.startswith(_ABSOLUTE)


def _paths(config: ComposeConfig) -> Iterator[str]:
    """The paths of this machine that a model names."""
    model = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    for service in _mappings(model, "services"):
        build = service.get("build")
        if build is not None:
            yield str(build.get("context", ".") if isinstance(build, dict) else build)
        files = service.get("env_file", [])
        yield from [files] if isinstance(files, str) else files
        for volume in service.get("volumes", []):
            if isinstance(volume, dict):
                if volume.get("type") == "bind":
                    yield str(volume.get("source", "/"))
            elif volume.startswith("."):
                # any other word without a slash is the name of a volume
                yield volume
    for volume in _mappings(model, "volumes"):
        options = volume.get("driver_opts")
        if isinstance(options, dict) and {"bind", "rbind"} & set(str(options.get("o", "")).split(",")):
            yield str(options.get("device", "/"))


def _mappings(model: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    section = model.get(name)
    return [item for item in section.values() if isinstance(item, dict)] if isinstance(section, dict) else []
