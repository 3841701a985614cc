# SPDX-License-Identifier: Apache-2.0
"""A VM whose guest writes to its disks all the time (tests/guest/writer.c), and what it says on its console, followed
from pool to pool with the time at which it was seen."""

import fcntl
import json
import os
import socket
import struct
import subprocess
import termios
import threading
import time

import linuxguest
from ferrytest import BIN, MIB, give, wait_for

MEMORY = 96 * MIB
BOOT = 90.0
LOOK = 0.005  # seconds between two looks at the consoles; a tick comes each 10 ms


class Console(threading.Thread):
    """Follows the console's log of one VM in several pools, until it is stopped."""

    def __init__(self, uuid, pools):
        super().__init__(daemon=True, name="console")
        self.uuid, self.pools = uuid, list(pools)
        self.ticks = []  # (when it was seen here, guest's milliseconds, pool)
        self.events = []  # (when, what the writer said, pool)
        self.lines = []  # (when, what is neither, pool)
        self.changed = threading.Condition()
        self._booted = False
        self._ended = threading.Event()
        self._logs = {}  # pool: (file, what was read behind its last line)
        self.start()

    def stop(self):
        self._ended.set()
        self.join()
        for file, _ in self._logs.values():
            file.close()

    def path(self, pool):
        return pool.path("run", "guests", self.uuid, "console.log")

    def run(self):
        while not self._ended.wait(LOOK):
            for pool in self.pools:
                self._read(pool)

    def _open(self, pool):
        """The log, which is another file after each start of a guest there."""
        file, rest = self._logs.get(pool, (None, b""))
        try:
            status = os.stat(self.path(pool))
        except OSError:
            return file, rest
        if file and os.fstat(file.fileno()).st_ino == status.st_ino:
            if status.st_size < file.tell():
                file.seek(0)
            return file, rest
        if file:
            self._take(file.read(), rest, pool)
            file.close()
        return open(self.path(pool), "rb"), b""

    def _read(self, pool):
        try:
            file, rest = self._open(pool)
        except OSError:
            return
        if file:
            self._logs[pool] = (file, self._take(file.read(), rest, pool))

    def _take(self, data, rest, pool):
        if not data:
            return rest
        now = time.monotonic()
        *lines, rest = (rest + data).split(b"\n")
        with self.changed:
            for line in lines:
                self._take_line(now, line.decode(errors="replace").strip(), pool)
            self.changed.notify_all()
        return rest

    def _take_line(self, now, line, pool):
        if line.startswith("+") and line[1:].isdigit():
            self._take_tick((now, int(line[1:]), pool))
            return
        if line.startswith("{"):
            try:
                self.events.append((now, json.loads(line), pool))
                self._booted = self._booted or self.events[-1][1].get("event") == "ready"
                return
            except ValueError:
                pass  # the kernel said something in the middle of it
        self.lines.append((now, line, pool))

    def _take_tick(self, tick):
        """The guest's clock never goes back, unless it boots: a byte was lost or doubled then, in this one or the last."""
        if self.ticks and tick[1] < self.ticks[-1][1] and not self._booted:
            if len(self.ticks) > 1 and tick[1] < self.ticks[-2][1]:
                self.lines.append((tick[0], f"garbled: {tick[1]}", tick[2]))
                return
            self.lines.append((tick[0], f"garbled: {self.ticks.pop()[1]}", tick[2]))
        self._booted = False
        self.ticks.append(tick)

    # --- asking ---

    def wait_for(self, what, condition, timeout):
        """Waits until condition() is true, which is asked whenever something came."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while True:
                value = condition()
                if value:
                    return value
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{what}: not within {timeout} s; the console's end: {self.tail()}")
                self.changed.wait(left)

    def tail(self):
        said = sorted([*self.lines[-60:], *self.events[-3:]], key=lambda entry: entry[0])
        return [entry[1] for entry in said]

    def wait_for_event(self, name, timeout=BOOT, command=""):
        def found():
            for _, event, _ in reversed(self.events):
                if event["event"] == name and event.get("id", "") == command:
                    return event
                if event["event"] == "failed":
                    raise AssertionError(f"the writer failed: {event}")
            return None
        return self.wait_for(f"the writer says {name}", found, timeout)

    def wait_for_tick(self, pool, timeout=20.0):
        """One from now on, from that pool."""
        begun = len(self.ticks)
        self.wait_for(f"the guest runs in pool {pool.name}",
                      lambda: any(tick[2] is pool for tick in self.ticks[begun:]), timeout)

    def wait_for_any_tick(self, timeout=20.0):
        """A tick from now on, wherever the guest runs."""
        begun = len(self.ticks)
        self.wait_for("the guest runs", lambda: len(self.ticks) > begun, timeout)

    def last_status(self):
        """The last that the guest told by itself, wherever it ran; None before the first."""
        return next((event for _, event, _ in reversed(self.events) if event["event"] == "status"), None)

    def complaints(self):
        return [event for _, event, _ in self.events if event["event"] in ("error", "wrong", "failed")]

    def pauses(self, since=0.0):
        """(when, seconds) of the times that passed here and not in the guest between two ticks: its clock
        stands still while it is paused. Longest first."""
        ticks = list(self.ticks)
        found = [(then, (now - then) - (after - before) / 1000)
                 for (then, before, _), (now, after, _) in zip(ticks, ticks[1:]) if now >= since]
        return sorted(found, key=lambda pause: -pause[1])

    def pause(self, since=0.0):
        """Seconds of the longest of them."""
        found = self.pauses(since)
        return found[0][1] if found else 0.0


class LiveGuest:
    """`writer`: arguments of the writer, one per disk, as "random:600": the device is added. Sizes are bytes; a size
    in the place of an ext4 writer is made into a file system."""

    def __init__(self, pool, label, disks, pools=None, sr=None, networks=(), memory=MEMORY, tick=10):
        """disks: (size, "pattern:rate..."), and "qcow2" for one that is not raw. sr: of all, or a list of each one's."""
        self.pool = pool
        self.sr = sr or pool.sr_create()
        srs = self.sr if isinstance(self.sr, list) else [self.sr] * len(disks)
        vdis = [pool.vdi_create(home, size, image=image[0] if image else "raw")
                for home, (size, _, *image) in zip(srs, disks)]
        writer = [f"tick={tick}"]
        for letter, vdi, (size, pattern, *_) in zip("abcdefgh", vdis, disks):
            if pattern.startswith("ext4"):
                make_file_system(pool.vdi_path(vdi), size)
            writer.append(f"vd{letter}:{pattern}")
        self.vm = pool.vm_create(label, vdis, networks, VCPUs_max="1", VCPUs_at_startup="1",
                                 **linuxguest.boot_fields(pool.root, *writer))
        pool.session.VM.set_memory_limits(self.vm, *[str(memory)] * 4)
        self.uuid = pool.session.VM.get_uuid(self.vm)
        self.label = label
        self.console = Console(self.uuid, pools or [pool])
        self._commands = 0

    def close(self):
        self.console.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def call(self, operation, *args):
        return getattr(self.pool.session.VM, operation)(self.vm, *args)

    def start(self):
        self.call("start", False, False)
        self.console.wait_for_event("ready")
        return self

    def state(self):
        return self.call("get_power_state")

    def now_in(self, pool):
        """It has moved; or it has not, and the ref is to be found again."""
        self.pool, self.vm = pool, pool.vm_by_uuid(self.uuid)
        return self

    # --- talking to the writer ---

    def command(self, name, *args, timeout=60.0):
        """What it answers. The guest must not be moved meanwhile."""
        self._commands += 1
        number = str(self._commands)
        path = self.pool.path("run", "guests", self.uuid, "console")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.sendall(" ".join([name, number, *map(str, args)]).encode() + b"\n")
            wait_for("QEMU takes the command", lambda: unread(connection) == 0, 20, 0.001)
        return self.console.wait_for_event(name, timeout, number)

    def status(self):
        """The last one that it told by itself."""
        for _, event, pool in reversed(self.console.events):
            if event["event"] == "status" and pool is self.pool:
                return event
        return None

    def next_status(self, timeout=20.0):
        """One that it tells from now on."""
        begun = len(self.console.events)

        def found():
            return [event for _, event, pool in self.console.events[begun:]
                    if event["event"] == "status" and pool is self.pool]
        return self.console.wait_for("the guest's status", found, timeout)[-1]

    # --- proofs ---

    def disk_paths(self):
        return [self.pool.vdi_path(vdi) for vdi in self.pool.disks_of(self.vm)]

    def verify_inside(self):
        """The guest reads all of its disks and compares them with what it remembers."""
        answer = self.command("verify", timeout=120.0)
        bad = [disk for disk in answer["disks"] if disk["wrong"] or disk["errors"]]
        if bad or self.console.complaints():
            raise AssertionError(f"the guest finds {bad}: {self.console.complaints()[:10]}")
        return answer

    def verify_outside(self):
        """Stops the writer and compares the image files with its tables; it stays stopped. What it answered, with
        what was found for each disk."""
        answer = self.command("stop", timeout=60.0)
        for disk, path in zip(answer["disks"], self.disk_paths()):
            if disk["pattern"] != "ext4":
                disk["found"] = verify_image("table", path, disk["disk"], disk["hash"])
        return answer

    def power_off(self):
        """By the writer, which writes out its tables and unmounts what it mounted."""
        answer = self.command("poweroff")
        wait_for("the VM is halted", lambda: self.state() == "Halted", 20)
        return answer


def unread(connection):
    """What of it the other end has not taken. As soon as it has, we hang up: while somebody is connected and does not
    read each byte at once (a socket holds some 270 writes of one), QEMU 7.2 writes bytes to the log twice."""
    return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]


def make_file_system(path, size):
    os.truncate(path, size)
    subprocess.run(["/sbin/mke2fs", "-q", "-F", "-t", "ext4", path], check=True, stdout=subprocess.DEVNULL)
    give(path)


def verify_image(how, path, *args):
    """What bin/verify_image says of an image, as a dict; AssertionError when it is not good."""
    done = subprocess.run([os.path.join(BIN, "verify_image"), how, path, *map(str, args)], check=False,
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{path}: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def check_file_system(path):
    """e2fsck must find nothing; its last line."""
    done = subprocess.run(["/sbin/e2fsck", "-f", "-n", path], check=False, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise AssertionError(f"e2fsck of {path}: {done.stdout}")
    return done.stdout.strip().splitlines()[-1]


def verify_files(path, disk, folder):
    """The files in an ext4 image, taken out into the (empty) folder, are those that the writer told of."""
    subprocess.run(["/sbin/debugfs", "-R", f"rdump / {folder}", path], check=True, capture_output=True)
    return verify_image("files", folder, disk["disk"], disk["hash"])
