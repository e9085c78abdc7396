"""A disk whose power can be cut: an image on a loop device, mounted in a mount namespace of this process's own.

The cut is the kernel's file-system shutdown (EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN: one number) without a flush of the
log: from that moment nothing reaches the image, and what was not fsynced by then is gone after the next mount, as it
is after a power cut. What a drive's own cache may lose on top of that is not simulated. Needs root; `why_not` says
what is missing. When this process ends, however it does, the namespace ends and takes mounts and loop devices along.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
# mkfs.xfs refuses less than 300 MB; the image is sparse.
_IMAGE_BYTES = {"ext4": 256 << 20, "xfs": 320 << 20}
_MKFS = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}
_UNMOUNT_S = 20.0

os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def why_not() -> str | None:
    """Return why power cannot be cut here, None if it can."""
    if os.geteuid() != 0:
        return "cutting the power of a loop-mounted disk needs root"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices here"
    missing = [each for each in ("mkfs.ext4", "mount", "umount") if shutil.which(each) is None]
    if missing:
        return f"{missing[0]} is not installed"
    try:
        probe = subprocess.run(
            ["unshare", "--mount", "losetup", "--find"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"loop devices cannot be tried: {error}"
    return None if probe.returncode == 0 else f"no loop device can be had: {probe.stderr.strip()}"


def file_systems() -> tuple[str, ...]:
    """Return the kinds of file systems that can be made here."""
    return tuple(kind for kind, command in _MKFS.items() if shutil.which(command[0]) is not None)


def enter_namespace() -> None:
    """Give this process mounts of its own; call it once, before any thread is started."""
    libc = ctypes.CDLL(None, use_errno=True)
    for done in (
        libc.unshare(_CLONE_NEWNS),
        libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None),
    ):
        if done != 0:
            raise OSError(ctypes.get_errno(), "no mount namespace of its own can be had")


def scratch_folder() -> str | None:
    """Return where images are best made: in memory, since thousands of cuts would only wear this machine's disk."""
    shm = Path("/dev/shm")
    return str(shm) if shm.is_dir() and os.statvfs(shm).f_bavail * os.statvfs(shm).f_frsize > 2 << 30 else None


class Disk:
    """One disk: an image beside the folder `root` that it is mounted on."""

    def __init__(self, folder: Path, kind: str, *, image_bytes: int | None = None, options: str = "loop") -> None:
        self.kind = kind
        self.image = folder / f"{kind}.img"
        self.root = folder / kind
        self._options = options
        self.root.mkdir(parents=True)
        with self.image.open("wb") as image:
            image.truncate(image_bytes or _IMAGE_BYTES[kind])
        _run(*_MKFS[kind], str(self.image))
        self.mount()

    def mount(self) -> None:
        """Mount it: its journal is replayed, as after any cut."""
        _run("mount", "-t", self.kind, "-o", self._options, str(self.image), str(self.root))

    def cut(self) -> None:
        """Cut the power; whoever uses the disk has to be killed and `remount` called."""
        folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(folder, SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(folder)

    def remount(self) -> None:
        """Bring the disk back."""
        self.unmount()
        self.mount()

    def unmount(self) -> None:
        """Take it away, waiting for those who were killed."""
        libc = ctypes.CDLL(None, use_errno=True)
        end = time.monotonic() + _UNMOUNT_S
        while libc.umount2(os.fsencode(self.root), 0) != 0:
            number = ctypes.get_errno()
            if number != errno.EBUSY or time.monotonic() > end:
                raise OSError(number, os.strerror(number), str(self.root))
            time.sleep(0.002)

    def close(self) -> None:
        """Unmount it for good and delete the image."""
        self.unmount()
        self.image.unlink()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise OSError(errno.EIO, f"{' '.join(command)}: {done.stderr.strip()}")
