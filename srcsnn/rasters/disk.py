"""Checks for disk space before HDF5 needs it, as HDF5 does not recover from a failed write."""

import errno
import os
import shutil
from pathlib import Path

try:
    import fcntl
    import resource
except ImportError:  # not a POSIX system; files have no size limit there, and others keep locks
    fcntl = None  # type: ignore[assignment]  # not on every system
    resource = None  # type: ignore[assignment]  # not on every system


def require_space(folder: Path, held: int, need: int) -> None:
    """Checks that a file may grow.

    Another process may still take the space in the meantime, and quotas are not seen; this makes
    a failed write rare, not impossible.

    Args:
        folder: Where the file is.
        held: Bytes that the file has.
        need: Bytes that it is going to have in addition.

    Raises:
        OSError: If the disk, or the process's limit on the size of files, does not allow it.
    """
    if resource is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if limit != resource.RLIM_INFINITY and held + need > limit:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    if shutil.disk_usage(folder).free < need:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def divert_writes(handle: int) -> None:
    """Makes an open file descriptor write to nowhere; the file stays as it is on the disk."""
    if hasattr(os, "memfd_create"):
        sink = os.memfd_create("srcsnn-abandoned")
    else:
        sink = os.open(os.devnull, os.O_RDWR)
    os.dup2(sink, handle)
    os.close(sink)


def is_locked(path: Path) -> bool:
    """Whether another process has the file open for writing; HDF5 locks what it writes."""
    if fcntl is None:
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
    return False
