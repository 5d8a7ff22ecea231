"""Images for compose projects, made of this machine's files, so that no registry is needed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

from exchange import BUSYBOX

# What the checks and the injected tools of Inspect call: a shell, coreutils, ps, tar, Debian's adduser and its needs.
PACKAGES = [
    "adduser",
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "grep",
    "gzip",
    "libc6",
    "libpam-modules",
    "libpam-runtime",
    "passwd",
    "perl-base",
    "procps",
    "sed",
    "tar",
    "zlib1g",
]
LEFT_OUT = tuple(f"/usr/share/{name}" for name in ("doc", "info", "locale", "man", "lintian"))
# Loaded by name at run time.
LOADED = ["libgcc_s.so.1"]
ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nagent:x:1000:1000::/home/agent:/bin/bash\n",
    "etc/group": "root:x:0:\nshadow:x:42:\nusers:x:100:\nagent:x:1000:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\nagent:*:19000:0:99999:7:::\n",
    "etc/gshadow": "root:*::\nshadow:*::\nusers:*::\nagent:!::\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
}

BUSYBOX_DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -m 1777 /tmp && echo 'root:x:0:0::/:/bin/sh' >/etc/passwd
"""
DEBIAN_DOCKERFILE = "FROM scratch\nADD root.tar /\nWORKDIR /home/agent\n"


def busybox_image(directory: Path) -> None:
    """Makes the build context of an image that is busybox alone."""
    directory.mkdir(parents=True)
    shutil.copy(BUSYBOX, directory / "busybox")
    (directory / "Dockerfile").write_text(BUSYBOX_DOCKERFILE)


def debian_image(directory: Path) -> None:
    """Makes the build context of a small Debian, out of this machine's own packages; user 1000 is `agent`."""
    directory.mkdir(parents=True)
    (directory / "Dockerfile").write_text(DEBIAN_DOCKERFILE)
    with tarfile.open(directory / "root.tar", "w") as archive:
        for path, mode, owner in [
            ("etc", 0o755, 0),
            ("run", 0o755, 0),
            ("usr", 0o755, 0),
            ("var", 0o755, 0),
            ("tmp", 0o1777, 0),
            ("root", 0o700, 0),
            ("home", 0o755, 0),
            ("home/agent", 0o755, 1000),
        ]:
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
            archive.addfile(entry)
        for name in ("bin", "lib", "lib64", "sbin"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(entry)
        for path in sorted(_debian_files()):
            archive.add(path, path.lstrip("/"), recursive=False)
        for path, text in ACCOUNTS.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text), 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))


def _debian_files() -> set[str]:
    """The files of the packages and the libraries that they are linked to, below the real directories."""
    listed = _lines("dpkg", "--listfiles", *PACKAGES)
    found = {path for path in listed if path.startswith("/") and not path.startswith(LEFT_OUT)}
    # made when packages are installed, and of a package that depends on the release
    found |= {str(path) for path in Path("/etc/pam.d").iterdir()} | {"/etc/login.defs"}
    found = {
        _real(path)
        for path in found
        if os.path.lexists(path) and (Path(path).is_symlink() or Path(path).is_file())
    }
    programs = [path for path in found if _is_program(path)]
    libraries = {word for line in _lines("ldd", *programs) for word in line.split() if word.startswith("/")}
    cache = _lines("/sbin/ldconfig", "--print-cache")
    libraries |= {line.split()[-1] for line in cache if line.split() and line.split()[0] in LOADED}
    for path in {path.rstrip(":") for path in libraries}:
        found |= {_real(path), os.path.realpath(path)}
    return found - {f"/{path}" for path in ACCOUNTS}


def _real(path: str) -> str:
    """The path with its directory's links followed, and its own kept."""
    directory, name = os.path.split(path)
    return str(Path(directory).resolve() / name)


def _is_program(path: str) -> bool:
    if Path(path).is_symlink():
        return False
    with open(path, "rb") as file:  # noqa: PTH123 - as the others here, it takes the text
        return file.read(4) == b"\x7fELF"


def _lines(*command: str) -> Iterable[str]:
    # ldd fails as soon as one of the files is static
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
