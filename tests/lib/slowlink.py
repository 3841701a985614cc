# SPDX-License-Identifier: Apache-2.0
"""A network namespace behind a link of a known rate (veth, tc tbf), for a pool that stands elsewhere."""

import contextlib
import os
import random
import shutil
import subprocess
import unittest

MIB = 1 << 20


class SlowLink:
    """near and far are its ends' addresses; `enter` runs a command at the far one. Needs root."""

    def __init__(self, bytes_per_sec):
        if os.geteuid() != 0:
            raise unittest.SkipTest("a network namespace needs root")
        if not shutil.which("ip") or not shutil.which("tc"):
            raise unittest.SkipTest("needs ip and tc (package iproute2)")
        number = random.randrange(1, 1 << 14)
        self.name = f"ferry{number}"
        subnet = f"10.{200 + number % 50}.{number // 50 % 250}"
        self.near, self.far = f"{subnet}.1", f"{subnet}.2"
        self.enter = ["nsenter", f"--net=/run/netns/{self.name}"]
        self._undo = contextlib.ExitStack()
        try:
            self._make(bytes_per_sec)
        except BaseException:
            self.close()
            raise

    def _make(self, bytes_per_sec):
        name, peer = self.name, self.name + "p"
        self._run("ip", "netns", "add", name)
        self._undo.callback(self._run, "ip", "netns", "del", name)
        self._run("ip", "link", "add", name, "type", "veth", "peer", "name", peer, "netns", name)
        self._run("ip", "addr", "add", f"{self.near}/30", "dev", name)
        self._run("ip", "link", "set", name, "up")
        for args in (["addr", "add", f"{self.far}/30", "dev", peer], ["link", "set", peer, "up"], ["link", "set", "lo", "up"]):
            self._run(*self.enter, "ip", *args)
        limit = ["root", "tbf", "rate", f"{bytes_per_sec * 8}bit", "burst", "256kb", "latency", "50ms"]
        for command in (["tc", "qdisc", "add", "dev", name], [*self.enter, "tc", "qdisc", "add", "dev", peer]):
            try:
                self._run(*command, *limit)
            except subprocess.CalledProcessError as error:
                raise unittest.SkipTest(f"no sch_tbf in this kernel: {error.stderr.strip()}") from None

    @staticmethod
    def _run(*command):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def sent(self):
        """Bytes that went to the far end."""
        with open(f"/sys/class/net/{self.name}/statistics/tx_bytes", encoding="ascii") as file:
            return int(file.read())

    def cut(self):
        """Nothing passes any more, and nobody is told."""
        self._run("ip", "link", "set", self.name, "down")

    def mend(self):
        self._run("ip", "link", "set", self.name, "up")

    def close(self):
        self._undo.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
