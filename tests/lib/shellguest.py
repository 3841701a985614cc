# SPDX-License-Identifier: Apache-2.0
"""A VM whose guest has a heartbeat and a shell on its console (linuxguest.py)."""

import os
import re
import socket

import linuxguest
from ferrytest import MIB, wait_for

MEMORY = 96 * MIB
BOOT = 60.0


class Guest:
    """A VM of a pool, and what its guest shows."""

    def __init__(self, pool, label, disks=1, networks=0, vdis=None, **fields):
        """vdis: its disks; else so many new ones in a new SR."""
        self.pool = pool
        self.sr = None if vdis else pool.sr_create()
        vdis = vdis or [pool.vdi_create(self.sr, 8 * MIB) for _ in range(disks)]
        fields = {**linuxguest.boot_fields(pool.root), **fields}
        self.vm = pool.vm_create(label, vdis, [pool.network_create() for _ in range(networks)],
                                 **fields)
        self.set_memory(MEMORY)
        self.uuid = pool.session.VM.get_uuid(self.vm)

    def set_memory(self, size):
        self.pool.session.VM.set_memory_limits(self.vm, *[str(size)] * 4)

    def call(self, operation, *args):
        return getattr(self.pool.session.VM, operation)(self.vm, *args)

    def start(self, paused=False):
        self.call("start", paused, False)
        return self

    def state(self):
        return self.call("get_power_state")

    def wait_for_state(self, state, timeout=10.0):
        wait_for(f"VM is {state}", lambda: self.state() == state, timeout, 0.02)

    def folder(self):
        return self.pool.path("run", "guests", self.uuid)

    def console(self):
        try:
            with open(os.path.join(self.folder(), "console.log"), encoding="utf-8",
                      errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def beats(self):
        found = re.findall(r"heartbeat (\d+)", self.console())
        return int(found[-1]) if found else 0

    def wait_for_beat(self, more=1):
        target = self.beats() + more
        wait_for(f"heartbeat {target}", lambda: self.beats() >= target, BOOT)
        return self

    def type(self, line):
        """Into its console, by the place that the console object tells."""
        console = self.call("get_consoles")[0]
        location = self.pool.session.console.get_location(console)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(location.removeprefix("unix:"))
            connection.sendall(line.encode() + b"\n")
            # What is typed is read once it has been echoed.
            connection.settimeout(10)
            seen = b""
            while line.encode() not in seen:
                seen += connection.recv(4096)

    def record(self):
        return self.pool.session.VM.get_record(self.vm)

    def pid(self):
        pids = [pid for pid in self.pool.guests()]
        if len(pids) != 1:
            raise AssertionError(f"{len(pids)} guests run")
        return pids[0]
