# SPDX-License-Identifier: Apache-2.0
"""Moves of guests that run and write: what must hold while they are under way, and afterwards wherever they ended."""

import json
import os
import re
import socket
import threading
import time
import unittest

import linuxguest
from ferrytest import MIB, Move, Pool, has_failed, wait_for
from liveguest import LiveGuest
from xensession import Failure, wait_by_events

ENDED = ("DONE", "FAILED", "CANCELLED")
SETTINGS = {
    "migration_heartbeat": "300ms",
    "migration_lease": "3s",
    "migration_abandon": "8s",
    "migration_peer_timeout": "6s",
}
# A guest that is paused for longer than this has been forgotten. The aim is far lower; this machine may be busy.
FORGOTTEN = 3.0
DISKS = [(16 * MIB, "random:100:4:0:12"), (16 * MIB, "mixed:30"), (24 * MIB, "ext4:10")]


class Watch(threading.Thread):
    """Sees each state of a pool's migrations, by events."""

    def __init__(self, pool):
        super().__init__(daemon=True, name=f"watch {pool.name}")
        self.session = pool.session.other()
        self.seen = []  # (when, record)
        self.changed = threading.Condition()
        self.ended = False
        self.token = self.session.call("event.from", ["migration"], "", 0.0)["token"]
        self.start()

    def run(self):
        while not self.ended:
            try:
                answer = self.session.call("event.from", ["migration"], self.token, 1.0)
            except (OSError, Failure):
                break  # the pool was killed: who did it looks for itself
            self.token = answer["token"]
            with self.changed:
                self.seen += [(time.monotonic(), event["snapshot"]) for event in answer["events"]
                              if event.get("snapshot")]
                self.changed.notify_all()
        self.session.close()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def stop(self):
        self.ended = True
        self.join()

    def states(self):
        """In the order in which they were seen, each once."""
        return list(dict.fromkeys(record["state"] for _, record in self.seen))

    def wait_for_state(self, *states, timeout=60.0):
        """The state of these that is seen first; None when the migration ended, or the pool died, before."""
        deadline = time.monotonic() + timeout
        with self.changed:
            while True:
                for _, record in self.seen:
                    if record["state"] in states:
                        return record["state"]
                if self.ended or any(record["state"] in ENDED for _, record in self.seen):
                    return None
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"no {' or '.join(states)} within {timeout} s; seen: {self.states()}")
                self.changed.wait(left)


class SenderLog:
    """The states of a pool's sending migrations as its agent logs them, from now on: a pause is too short for what a
    client is told of it."""

    def __init__(self, pool):
        self.file = open(pool.path("log"), encoding="utf-8", errors="replace")
        self.file.seek(0, os.SEEK_END)

    def close(self):
        self.file.close()

    def has_entered(self, state):
        """Since this was asked last."""
        return f" to={state}\n" in self.file.read()

    def wait_for_state(self, *states, timeout=60.0):
        """The first of these; None when the migration ended before."""
        deadline = time.monotonic() + timeout
        rest = ""
        while time.monotonic() < deadline:
            *lines, rest = (rest + self.file.read()).split("\n")
            for line in lines:
                found = re.search(r"MIG-STATE .*role=sender .*to=(\w+)", line)
                if found and found[1] in states:
                    return found[1]
                if found and found[1] in ENDED:
                    return None
            time.sleep(0.001)
        raise TimeoutError(f"no {' or '.join(states)} within {timeout} s")


def qmp(pool, uuid, command, **arguments):
    """By the guest's spare monitor, which nobody uses while no migration is under way."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.settimeout(10)
        monitor.connect(pool.path("run", "guests", uuid, "qmp2"))
        lines = monitor.makefile("r", encoding="utf-8")
        for name, args in (("qmp_capabilities", {}), (command, arguments)):
            monitor.sendall(json.dumps({"execute": name, "arguments": args, "id": name}).encode() + b"\n")
            while (answer := json.loads(lines.readline())).get("id") != name:
                pass
        if "error" in answer:
            raise AssertionError(f"{command}: {answer['error']}")
        return answer["return"]


def left_in_qemu(pool, uuid):
    """Bitmaps, exports, jobs and nodes that a move left, and limits on the disks."""
    nodes = qmp(pool, uuid, "query-named-block-nodes", flat=True)
    found = [f"bitmap {bitmap['name']} of {node['node-name']}"
             for node in nodes for bitmap in node.get("dirty-bitmaps", [])]
    found += [f"node {node['node-name']}" for node in nodes if node["drv"] == "null-co"]
    found += [f"export {export['id']}" for export in qmp(pool, uuid, "query-block-exports")]
    found += [f"job {job['device']}" for job in qmp(pool, uuid, "query-block-jobs")]
    found += [f"limit of {block['qdev']}" for block in qmp(pool, uuid, "query-block")
              if block.get("inserted", {}).get("bps_wr")]
    return found


class LiveCase(unittest.TestCase):
    """Two pools and a guest that writes, which goes on from test to test, and is in pool A when one begins."""

    settings = SETTINGS
    settings_a, settings_b = {}, {}  # of one of the pools
    disks = DISKS
    maxDiff = None
    guest = None

    @classmethod
    def setUpClass(cls):
        linuxguest.kernel()
        cls.a = cls.enterClassContext(Pool("A", **cls.settings, **cls.settings_a))
        cls.b = cls.enterClassContext(Pool("B", **cls.settings, **cls.settings_b))
        cls.addClassCleanup(cls.forget_guest)
        cls.sr = {pool: pool.sr_create() for pool in (cls.a, cls.b)}
        cls.net = {pool: pool.network_create() for pool in (cls.a, cls.b)}

    @classmethod
    def forget_guest(cls):
        if cls.guest:
            cls.guest.close()
            for pool in (cls.a, cls.b):
                vm = pool.session and pool.vm_by_uuid(cls.guest.uuid)
                if vm:
                    destroy(pool, vm)
        cls.guest = None

    def setUp(self):
        super().setUp()
        self.addCleanup(self.show_logs_of_a_failure)
        if not self.guest_is_well():
            self.new_guest_runs()

    def new_guest_runs(self):
        self.forget_guest()
        type(self).guest = self.new_guest().start()

    def new_guest(self, label="guest", **more):
        return LiveGuest(self.a, label, self.disks, pools=[self.a, self.b], sr=self.sr[self.a],
                         networks=[self.net[self.a]], **more)

    def guest_is_well(self):
        guest = self.guest
        return guest and guest.pool is self.a and guest.vm and not guest.console.complaints() and \
            guest.state() == "Running"

    def show_logs_of_a_failure(self):
        if has_failed(self):
            self.a.show_log(150)
            self.b.show_log(150)

    # --- moving ---

    def move(self, there=True, guest=None, **options):
        guest = guest or self.guest
        source, destination = (self.a, self.b) if there else (self.b, self.a)
        return Move(source, destination, guest.vm, self.sr[destination], self.net[destination], options=options)

    def watch(self, pool):
        watch = Watch(pool)
        self.addCleanup(watch.stop)
        return watch

    def begin(self, **options):
        """The task and a watch; not yet in any state."""
        watch = self.watch(self.a)
        return self.move(**options).begin(), watch

    def finish(self, there, task, begun):
        """Waits for the task, and proves that the guest is well at the destination; its record of the migration."""
        source, destination = (self.a, self.b) if there else (self.b, self.a)
        wait_by_events(source.session, task, 120.0)
        self.assert_well(destination, begun)
        return newest_migration(source)

    def go(self, there=True, **options):
        source = self.a if there else self.b
        begun = time.monotonic()
        return self.finish(there, self.move(there, **options).begin(), begun)

    # --- what must hold ---

    def settled(self):
        for pool in (self.a, self.b):
            session = pool.session
            if any(task["status"] == "pending" for task in session.task.get_all_records().values()):
                return False
            if any(record["state"] not in ENDED for record in session.migration.get_all_records().values()):
                return False
        return True

    def where_it_ended(self, timeout=90):
        """The pool that has the VM, once nothing is under way any more; exactly one has."""
        wait_for("the migration settles on both sides", self.settled, timeout, 0.1)
        pools = [pool for pool in (self.a, self.b) if pool.vm_by_uuid(self.guest.uuid)]
        self.assertEqual(len(pools), 1, "the VM is in exactly one pool")
        return pools[0]

    def assert_well(self, pool, begun, pause=FORGOTTEN):
        """The guest runs in this pool and has noticed nothing; the other keeps nothing of it. pause: the longest since
        begun, in seconds."""
        guest, other = self.guest, self.b if pool is self.a else self.a
        guest.now_in(pool)
        guest.console.wait_for_tick(pool)
        record = pool.session.VM.get_record(guest.vm)
        self.assertEqual((record["power_state"], record["resident_on"]), ("Running", pool.host))
        self.assertEqual(len(pool.guests()), 1)
        other.wait_for_no_leftovers(30)
        self.assertIsNone(other.vm_by_uuid(guest.uuid))
        self.assertEqual(other.session.VDI.get_all(), [])
        pool.wait_for_no_leftovers(30, running=[guest.uuid])
        self.assertEqual(pool.session.VM.get_current_operations(guest.vm), {})
        self.assertIn("migrate_send", pool.session.VM.get_allowed_operations(guest.vm))
        self.assertEqual(left_in_qemu(pool, guest.uuid), [])
        self.assertLess(guest.console.pause(begun), pause)
        guest.verify_inside()

    def assert_content(self):
        """Each block in the images is the one that the guest wrote last."""
        answer = self.guest.verify_outside()
        self.guest.command("go")
        return answer

    def assert_stayed(self, task, begun, *codes):
        """The move failed, and the guest has noticed nothing."""
        with self.assertRaises(Failure) as raised:
            wait_by_events(self.a.session, task, 60.0)
        if codes:
            self.assertIn(raised.exception.code, codes, raised.exception.details)
        self.assertIs(self.where_it_ended(), self.a)
        self.assert_well(self.a, begun)
        return raised.exception

    def assert_somewhere(self, begun, pause=FORGOTTEN):
        """It runs in exactly one pool, and is brought home from the other. "stayed" or "moved"."""
        pool = self.where_it_ended()
        self.assert_well(pool, begun, pause)
        self.assert_content()
        if pool is self.a:
            return "stayed"
        self.go(there=False)
        return "moved"


def destroy(pool, vm):
    """The VM, with its disks."""
    if pool.session.VM.get_power_state(vm) != "Halted":
        pool.session.VM.hard_shutdown(vm)
    vdis = pool.disks_of(vm)
    pool.session.VM.destroy(vm)
    for vdi in vdis:
        pool.session.VDI.destroy(vdi)


def newest_migration(pool):
    records = pool.session.migration.get_all_records().values()
    return max((record for record in records if record["role"] == "sender"),
               key=lambda record: (str(record["started"]), str(record["finished"])))


def kill_all(pids, signal_number):
    for pid in pids:
        try:
            os.kill(pid, signal_number)
        except ProcessLookupError:
            pass
