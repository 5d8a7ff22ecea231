"""Compose projects whose images come from this machine, so that no registry is needed, and what they need of it."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
PLUGINS = [
    Path(directory) / "docker/cli-plugins/docker-compose"
    for directory in ("/usr/local/lib", "/usr/local/libexec", "/usr/lib", "/usr/libexec")
]

# What Inspect's checks call, and its tools: a shell, coreutils, ps, and Debian's adduser with all that it calls.
PACKAGES = [
    "adduser",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "grep",
    "libpam-modules",
    "libpam-runtime",
    "passwd",
    "perl-base",
    "procps",
    "sed",
    "tar",
]
LEFT_OUT = ("/usr/share/doc", "/usr/share/info", "/usr/share/locale", "/usr/share/man", "/usr/share/lintian")
# Programs are linked to them by name at run time.
LOADED = [
    "libnss_files.so.2",
    "libgcc_s.so.1",
    # and Inspect's injected tools
    "libdl.so.2",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libutil.so.1",
    "libz.so.1",
]
ACCOUNTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nagent:x:1000:1000::/home/agent:/bin/bash\n",
    "etc/group": "root:x:0:\nshadow:x:42:\nusers:x:100:\nagent:x:1000:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\nagent:*:19000:0:99999:7:::\n",
    "etc/gshadow": "root:*::\nshadow:*::\nusers:*::\nagent:!::\n",
    # a user of one check must be gone with its group before the next one
    "etc/login.defs": "USERGROUPS_ENAB yes\n",
    # Inspect takes its tools for the distribution that this names
    "etc/os-release": 'ID=debian\nVERSION="12"\n',
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
}

BUSYBOX_DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -m 1777 /tmp && echo 'root:x:0:0::/:/bin/sh' >/etc/passwd && echo ID=debian >/etc/os-release
"""
DEBIAN_DOCKERFILE = "FROM scratch\nADD root.tar /\nWORKDIR /home/agent\n"


def missing() -> str | None:
    """Why services cannot be run on this machine, with what to install; nothing if they can."""
    if os.geteuid() != 0:
        return "needs root: a Docker Engine runs in sandboxes of namespaces/root-idmap only"
    for program, package in {"dockerd": "docker.io", "docker": "docker.io", "iptables": "iptables"}.items():
        if shutil.which(program) is None:
            return f"needs {program}: apt-get install {package}"
    if not any(plugin.exists() for plugin in PLUGINS):
        return "needs Compose 2: apt-get install docker-compose (Debian 13), or .ci/docker (Debian 12)"
    if not BUSYBOX.exists():
        return f"needs {BUSYBOX}: apt-get install busybox-static"
    return None


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
    found |= {str(path) for path in Path("/etc/pam.d").iterdir()}
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
