"""The exceptions of `write_file` and `read_file` are the sandbox's operating system's, with the caller's path."""

from __future__ import annotations

import errno

import pytest

from inspect_daytona import DaytonaSandboxEnvironment

pytestmark = pytest.mark.anyio


async def test_what_the_file_system_refuses_is_the_os_error_that_python_has_for_it(
    sandbox: DaytonaSandboxEnvironment,
) -> None:
    line = """
        mkdir d; echo x > plain; echo x > fixed; chmod 400 fixed; ln -s loop loop
        sudo sh -c 'mkdir /frozen; mount -t tmpfs -o ro tmpfs /frozen'
    """
    prepared = await sandbox.exec(["sh", "-c", line])
    assert prepared.success, prepared.stderr
    expected: list[tuple[str, type[OSError], int]] = [
        ("n" * 300, OSError, errno.ENAMETOOLONG),
        ("plain/below", NotADirectoryError, errno.ENOTDIR),
        ("loop", OSError, errno.ELOOP),
        ("/dev/full", OSError, errno.ENOSPC),
        ("/frozen/x", PermissionError, errno.EROFS),
        ("fixed", PermissionError, errno.EACCES),
        ("d", IsADirectoryError, errno.EISDIR),
    ]
    for path, kind, number in expected:
        with pytest.raises(OSError, match=path[:100]) as caught:
            await sandbox.write_file(path, "text")
        assert type(caught.value) is kind
        assert (caught.value.errno, caught.value.filename) == (number, path)
