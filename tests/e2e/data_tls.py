#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Disks travel through the data port unless both sides say that they do not have to."""

import ipaddress
import os
import signal
import struct
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from slowmove import SlowMove
from xensession import wait_by_polling

LISTEN, ESTABLISHED = "0A", "01"
DATA_ADDRESS = "127.0.0.2"


def end(text):
    """An end of a connection as /proc/net/tcp has it, in the machine's byte order."""
    address, port = text.split(":")
    return (str(ipaddress.ip_address(struct.pack("=I", int(address, 16)))), int(port, 16))


def sockets(pid, state):
    """(local end, remote end) of a process's TCP sockets in that state."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:
            continue
        if link.startswith("socket:["):
            inodes.add(link[len("socket:["):-1])
    with open(f"/proc/{pid}/net/tcp", encoding="ascii") as file:
        rows = [line.split() for line in file.readlines()[1:]]
    return [(end(row[1]), end(row[2])) for row in rows if row[9] in inodes and row[3] == state]


def addresses(pid):
    return {local[0] for local, _ in sockets(pid, LISTEN)}


class InTls(SlowMove):
    settings_b = {"ferryd_data_address": DATA_ADDRESS}

    def test_tgtd_is_reached_by_its_agent_only(self):
        task = self.begin_and_wait_for_the_middle()
        tgtd, = self.b.tgtds()
        self.assertEqual(addresses(tgtd), {"127.0.0.1"})
        port, = (local[1] for local, _ in sockets(tgtd, LISTEN))
        own = {local for local, remote in sockets(self.b.process.pid, ESTABLISHED)
               if remote == ("127.0.0.1", port)}
        served = {remote for _, remote in sockets(tgtd, ESTABLISHED)}
        self.assertTrue(served)
        self.assertEqual(served - own, set())
        wait_by_polling(self.a.session, task, 60)
        self.assert_moved()

    def test_one_side_alone_cannot_turn_it_off(self):
        """Neither is the other one told to, nor does it find out in the middle."""
        for pool, word in ((self.a, "off"), (self.b, "on")):
            pool.configure(ferryd_data_tls="off")
            pool.restart()
            with self.subTest(off=pool.name):
                error = self.refusal()
                self.assertIn(f'data_tls is "{word}" here', error)
            pool.configure(ferryd_data_tls="on")
            pool.restart()
        self.assert_untouched()

    def refusal(self):
        move = self.move()
        with self.assertRaises(Exception) as raised:
            move.check()
        with self.assertRaises(Exception) as again:
            move.send()
        self.assertEqual(str(raised.exception), str(again.exception))
        return str(raised.exception)

    def test_turned_off_in_the_middle_it_ends_the_move(self):
        task = self.begin_and_wait_for_the_middle()
        self.b.kill()
        self.b.configure(ferryd_data_tls="off")
        self.b.start()
        failure = self.assert_task_fails(task, "INTERNAL_ERROR")
        self.assertIn("in the clear", str(failure))
        self.assert_untouched()


class InTheClear(SlowMove):
    settings = {"ferryd_data_tls": "off"}
    settings_b = {"ferryd_data_address": DATA_ADDRESS}

    def test_tgtd_is_reached_by_the_sender(self):
        task = self.begin_and_wait_for_the_middle()
        tgtd, = self.b.tgtds()
        self.assertEqual(addresses(tgtd), {DATA_ADDRESS})
        wait_by_polling(self.a.session, task, 60)
        self.assert_moved()

    def test_tgtd_dies(self):
        task = self.begin_and_wait_for_the_middle()
        os.kill(self.b.tgtds()[0], signal.SIGKILL)
        wait_by_polling(self.a.session, task, 60)
        self.assert_moved()

    def test_the_receiver_dies_and_comes_back(self):
        task = self.begin_and_wait_for_the_middle()
        self.b.kill()
        self.b.start()
        wait_by_polling(self.a.session, task, 60)
        self.assert_moved()


if __name__ == "__main__":
    unittest.main(verbosity=2)
