"""What the installed distribution contains."""

from __future__ import annotations

from importlib.metadata import distribution


def test_the_wheel_contains_types_stubs_licence_and_the_native_module() -> None:
    files = [str(path) for path in distribution("inspect-daytona").files or []]
    for wanted in ("py.typed", "_core.pyi", "_core.abi3.so"):
        assert f"inspect_daytona/{wanted}" in files
    assert [path for path in files if path.endswith("LICENSE")]
    # the programs inside sandboxes are embedded in the native module, not files beside it
    assert [path for path in files if path.endswith((".exe", "-shim", "-runner"))] == []


def test_the_versions_agree() -> None:
    from inspect_daytona import _core

    assert _core.__version__ == distribution("inspect-daytona").version


def test_the_command_is_installed() -> None:
    [command] = [
        point for point in distribution("inspect-daytona").entry_points if point.group == "console_scripts"
    ]
    assert command.name == "inspect-daytona"
    assert command.value == "inspect_daytona._cli:main"
