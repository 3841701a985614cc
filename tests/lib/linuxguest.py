# SPDX-License-Identifier: Apache-2.0
"""A small Linux for tests of guests: Debian's kernel for cloud machines, and an initramfs made of
busybox and the kernel's own modules. It boots in some seconds without hardware virtualisation.

With `writer=...` among its arguments it runs tests/guest/writer.c instead of the shell's heartbeat."""

import functools
import glob
import os
import re
import shutil
import stat
import subprocess
import unittest

import ferrytest

ARGS = "console=ttyS0 quiet panic=-1"
MODULES = ("virtio_pci", "virtio_blk", "button", "evdev")

# Prints a heartbeat, writes to its first disk, turns itself off at the power button (unless it is
# "deaf"), and runs what comes in on its console. The writer does these things by itself.
INIT = r"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
echo "guest: booted with $(nproc) processors"
writer=$(sed -n 's/.*\bwriter=\([^ ]*\).*/\1/p' /proc/cmdline)
if [ -n "$writer" ]; then
    /bin/writer $(echo "$writer" | tr , ' ')
    echo "guest: the writer ended"
    poweroff -f
fi
grep -q deaf /proc/cmdline || for event in /dev/input/event*; do
    (head -c 24 "$event" >/dev/null && echo "guest: button" && sync && poweroff -f) &
done
(while read -r line; do eval "$line"; done) </dev/console &
count=0
while :; do
    count=$((count + 1))
    [ ! -b /dev/vda ] || echo "record $count" |
        dd of=/dev/vda bs=512 seek=$count conv=sync,fsync 2>/dev/null || echo "guest: write failed"
    echo "guest: heartbeat $count"
    sleep 0.2
done
"""


def kernel():
    """Path of a kernel that has the modules; the test is skipped when there is none."""
    found = [path for path in glob.glob("/boot/vmlinuz-*")
             if os.path.isdir(modules_of(path)) and os.access(path, os.R_OK)]
    if not found or not shutil.which("busybox"):
        raise unittest.SkipTest("needs linux-image-cloud-amd64 and busybox-static")
    return max(found, key=lambda path: ("cloud" in path, path))


def modules_of(path):
    return "/lib/modules/" + os.path.basename(path).removeprefix("vmlinuz-")


def module_files(folder):
    """Files of MODULES and of what they need, in the order in which they are to be loaded; one that
    is built into the kernel needs none."""
    needs = {}
    with open(os.path.join(folder, "modules.dep"), encoding="ascii") as file:
        for line in file:
            path, _, others = line.strip().partition(":")
            needs[path] = others.split()
    names = {re.sub(r"\.ko.*", "", os.path.basename(path)).replace("-", "_"): path
             for path in needs}
    order = []

    def add(path):
        for other in needs[path]:
            add(other)
        if path not in order:
            order.append(path)
    for name in MODULES:
        if name in names:
            add(names[name])
    return order


def module_content(path):
    if path.endswith(".xz"):
        return subprocess.run(["xz", "-dc", path], check=True, capture_output=True).stdout
    with open(path, "rb") as file:
        return file.read()


class Archive:
    """cpio in the form that the kernel unpacks ("newc")."""

    def __init__(self):
        self.data = bytearray()
        self.inode = 0

    def add(self, name, content=b"", mode=stat.S_IFREG | 0o755):
        self.inode += 1
        fields = (self.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        self.data += b"070701" + b"".join(b"%08x" % field for field in fields)
        self.data += name.encode() + b"\0"
        self.pad()
        self.data += content
        self.pad()

    def pad(self):
        self.data += bytes(-len(self.data) % 4)

    def folder(self, name):
        self.add(name, mode=stat.S_IFDIR | 0o755)


@functools.cache
def initramfs():
    """Its bytes."""
    folder = modules_of(kernel())
    archive = Archive()
    for name in ("bin", "dev", "mnt", "proc", "sys", "modules"):
        archive.folder(name)
    writer = os.path.join(ferrytest.BIN, "guest_writer")
    if os.path.exists(writer):
        with open(writer, "rb") as file:
            archive.add("bin/writer", file.read())
    with open(shutil.which("busybox"), "rb") as file:
        archive.add("bin/busybox", file.read())
    archive.add("init", INIT.encode())
    order = []
    for path in module_files(folder):
        name = re.sub(r"\.ko.*", ".ko", os.path.basename(path))
        archive.add(f"modules/{name}", module_content(os.path.join(folder, path)))
        order.append(name)
    archive.add("modules/order", "".join(f"{name}\n" for name in order).encode())
    archive.add("TRAILER!!!")
    return bytes(archive.data)


def boot_fields(folder, *writer):
    """Fields of a VM that boots it; the initramfs is written into the folder. writer: arguments of
    tests/guest/writer.c."""
    path = os.path.join(folder, "initramfs")
    if not os.path.exists(path):
        with open(path, "wb") as file:
            file.write(initramfs())
        os.chmod(path, 0o644)
    args = ARGS + (f" writer={','.join(writer)}" if writer else "")
    return {"PV_kernel": kernel(), "PV_ramdisk": path, "PV_args": args}
