# SPDX-License-Identifier: Apache-2.0
"""What is copied: disk images of several kinds, and the comparison of two of them."""
import errno
import os
import random
import shutil
import subprocess
import tempfile

KIB, MIB, TIB = 1 << 10, 1 << 20, 1 << 40


def random_data(path, mib):
    """Random bytes all over."""
    with open(path, "wb") as out:
        for _ in range(mib):
            out.write(os.urandom(MIB))


def half(path, mib):
    """Every other MiB is a hole."""
    with open(path, "wb") as out:
        for at in range(0, mib, 2):
            out.seek(at * MIB)
            out.write(os.urandom(MIB))
        out.truncate(mib * MIB)


def zeros(path, mib):
    """Zeros that are allocated."""
    with open(path, "wb") as out:
        for _ in range(mib):
            out.write(bytes(MIB))


def sparse(path, mib):
    """1 TiB that holds half as much data as the others, in runs of 16 MiB."""
    runs = max(mib // 32, 1)
    with open(path, "wb") as out:
        for i in range(runs):
            out.seek(i * (TIB // runs))
            for _ in range(min(16, mib)):
                out.write(os.urandom(MIB))
        out.truncate(TIB)


def scattered(path, mib):
    """Extents of 4 to 64 KiB at random places: 64 files of 128 pieces each."""
    choice = random.Random(1)
    with open(path, "wb") as out:
        out.truncate(mib * MIB)
        for _ in range(64 * 128):
            length = choice.randrange(1, 17) * 4 * KIB
            out.seek(choice.randrange(mib * MIB - length) // 4096 * 4096)
            out.write(os.urandom(length))


def some_files(folder, limit_bytes):
    """Copies files of this machine, in the order of their names, until there are so many bytes."""
    total = n = 0
    for root, folders, names in os.walk("/usr"):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(root, name)
            if os.path.islink(path) or not os.path.isfile(path) or not os.access(path, os.R_OK):
                continue
            shutil.copyfile(path, os.path.join(folder, f"{n}-{name}"[:200]))
            total, n = total + os.path.getsize(path), n + 1
            if total >= limit_bytes:
                return


def files(path, mib):
    """An ext4 file system that files of this machine fill by two thirds."""
    with tempfile.TemporaryDirectory(prefix="ferry-bench-") as folder:
        some_files(folder, mib * MIB * 2 // 3)
        with open(path, "wb") as out:
            out.truncate(mib * MIB)
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", folder, path], check=True)


DATASETS = {"random": random_data, "half": half, "zeros": zeros, "sparse": sparse,
            "scattered": scattered, "files": files}


def next_data(fd, at):
    """Offset of the next byte that may not be zero; None: there is none."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def is_same(one, other):
    """Whether two images read alike; holes of both are not read."""
    with open(one, "rb") as a, open(other, "rb") as b:
        size = os.fstat(a.fileno()).st_size
        if os.fstat(b.fileno()).st_size != size:
            return False
        at = 0
        while at < size:
            starts = [s for s in (next_data(f.fileno(), at) for f in (a, b)) if s is not None]
            if not starts:
                return True
            at = min(starts) // MIB * MIB if min(starts) > at else at
            if os.pread(a.fileno(), MIB, at) != os.pread(b.fileno(), MIB, at):
                return False
            at += MIB
    return True
