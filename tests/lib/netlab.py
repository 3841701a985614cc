# SPDX-License-Identifier: Apache-2.0
"""Hosts in network namespaces of their own on one bridge, which the test is at too: it reaches each of them while they
do not reach one another. Needs root. Names carry the test's pid: what a test that was killed left is removed by the
next one."""

import contextlib
import os
import shutil
import subprocess
import unittest

PREFIX = "ferrylab-"
NOWHERE = "02:00:00:00:00:fe"  # nobody's


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def try_to(*command):
    subprocess.run(command, check=False, capture_output=True)


def is_gone(pid):
    return pid.isdigit() and not os.path.exists(f"/proc/{pid}")


class Lab:
    """self.enter[name] runs a command at a host, self.address[name] is where it is reached."""

    def __init__(self, *names):
        if os.geteuid() != 0:
            raise unittest.SkipTest("network namespaces need root")
        if not shutil.which("ip"):
            raise unittest.SkipTest("needs ip (package iproute2)")
        remove_left()
        self.names = names
        self.bridge = f"fl{os.getpid()}"
        subnet = f"10.{100 + os.getpid() // 256 % 100}.{os.getpid() % 256}"
        self.address = {name: f"{subnet}.{number}" for number, name in enumerate(names, 2)}
        self.enter = {name: ["nsenter", f"--net=/run/netns/{self._space(name)}"] for name in names}
        self._undo = contextlib.ExitStack()
        try:
            self._make(subnet)
        except BaseException:
            self.close()
            raise

    def _space(self, name):
        return f"{PREFIX}{os.getpid()}-{name}"

    def _make(self, subnet):
        run("ip", "link", "add", self.bridge, "type", "bridge")
        self._undo.callback(try_to, "ip", "link", "del", self.bridge)
        run("ip", "addr", "add", f"{subnet}.1/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        for name in self.names:
            self._add(name, self._space(name), self.bridge + name.lower())

    def _add(self, name, space, end):
        run("ip", "netns", "add", space)
        self._undo.callback(try_to, "ip", "netns", "del", space)
        run("ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", space)
        # Daemons may still be in the namespace, which keeps it.
        self._undo.callback(try_to, "ip", "link", "del", end)
        run("ip", "link", "set", end, "master", self.bridge, "up")
        for args in (["link", "set", "lo", "up"], ["addr", "add", f"{self.address[name]}/24", "dev", "eth0"],
                     ["link", "set", "eth0", "up"]):
            self.at(name, "ip", *args)

    def at(self, name, *command):
        return run(*self.enter[name], *command)

    def cut(self, name):
        """Its own link is down: it reaches nobody, the test neither."""
        self.at(name, "ip", "link", "set", "eth0", "down")

    def mend(self, name):
        self.at(name, "ip", "link", "set", "eth0", "up")

    def part(self, some, others):
        """What the ones send to the others is lost, and nobody is told; the test still reaches all."""
        for one, other in [(a, b) for a in some for b in others]:
            for sender, receiver in ((one, other), (other, one)):
                self.at(sender, "ip", "neigh", "replace", self.address[receiver], "lladdr", NOWHERE,
                        "dev", "eth0", "nud", "permanent")

    def heal(self):
        for name in self.names:
            self.at(name, "ip", "neigh", "flush", "all", "nud", "permanent")

    def close(self):
        self._undo.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def remove_left():
    """What tests that are not there any more have left."""
    for space in os.listdir("/run/netns") if os.path.isdir("/run/netns") else ():
        pid, dash, name = space.removeprefix(PREFIX).partition("-")
        if space.startswith(PREFIX) and dash and is_gone(pid):
            try_to("ip", "link", "del", f"fl{pid}{name.lower()}")
            try_to("ip", "netns", "del", space)
            try_to("ip", "link", "del", f"fl{pid}")
