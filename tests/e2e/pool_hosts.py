#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One pool of several hosts: real agents on this machine, each with a port and folders of its own."""

import contextlib
import http.client
import os
import sqlite3
import subprocess
import sys
import threading
import time
import unittest
import xmlrpc.client

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import BIN, MIB, NULL, PASSWORD, Move, Pool, digest, wait_for  # noqa: E402
from xensession import Failure, Session, Transport, wait_by_polling  # noqa: E402

# A guest without a system on its disk: its firmware runs, which is all that is asked of it here.
MEMORY = 64 * MIB
LIVE = 40.0


def refused(test, code, function, *args):
    with test.assertRaises(Failure) as raised:
        function(*args)
    test.assertEqual(raised.exception.code, code, raised.exception.details)
    return raised.exception.details


class Base(unittest.TestCase):

    def two(self):
        """A coordinator, and a host that has joined it."""
        a = self.enterContext(Pool("A"))
        b = self.enterContext(Pool("B"))
        return a, b.join(a)

    def vm_on(self, pool, label="guest", size=4 * MIB):
        """A halted VM with a disk on that host's own SR."""
        sr = pool.sr_create(f"SR of {pool.name}")
        vdi = pool.vdi_create(sr, size)
        vm = pool.vm_create(label, [vdi])
        pool.session.VM.set_memory_limits(vm, *[str(MEMORY)] * 4)
        return vm, vdi, sr

    def sql(self, pool, statement, *parameters):
        with contextlib.closing(sqlite3.connect(pool.path("state", "pool.db"), timeout=10)) as db, db:
            return db.execute(statement, parameters).fetchall()

    def live(self, pool, host):
        metrics = pool.session.host.get_metrics(host)
        return pool.session.host_metrics.get_live(metrics)

    def state(self, pool, vm):
        return pool.session.VM.get_power_state(vm)


class Joining(Base):

    def test_a_host_joins_with_all_that_it_has(self):
        a = self.enterContext(Pool("A"))
        b = self.enterContext(Pool("B"))
        vm, vdi, sr = self.vm_on(b)
        b.vdi_write(vdi, b"something of B's", 4096)
        before = digest(b.vdi_path(vdi))
        network = b.network_create("guests of B")
        uuids = b.session.VM.get_uuid(vm), b.session.VDI.get_uuid(vdi), b.session.SR.get_uuid(sr)
        mine = a.host, a.session.pool.get_all()[0]
        b.join(a)

        self.assertEqual(set(a.session.host.get_all()), {a.host, b.host})
        self.assertEqual(a.session.pool.get_all(), [mine[1]])
        self.assertEqual(a.session.pool.get_master(mine[1]), a.host)
        self.assertEqual((a.session.VM.get_uuid(vm), a.session.VDI.get_uuid(vdi),
                          a.session.SR.get_uuid(sr)), uuids)
        self.assertEqual(digest(b.vdi_path(vdi)), before)
        self.assertEqual(a.session.network.get_name_label(network), "guests of B")
        # One management network, with an interface of each host.
        self.assertEqual(len({pif["network"] for pif in a.session.PIF.get_all_records().values()
                              if pif["management"]}), 1)
        controls = [vm for vm in a.session.VM.get_all_records().values()
                    if vm["is_control_domain"]]
        self.assertEqual({vm["resident_on"] for vm in controls}, {a.host, b.host})
        wait_for("B is live", lambda: self.live(a, b.host), 20)

    def test_a_member_sends_clients_to_its_coordinator(self):
        a, b = self.two()
        address = f"127.0.0.1:{a.port}"
        self.assertEqual(refused(self, "HOST_IS_SLAVE", Session, b.url, "root", PASSWORD),
                         ["HOST_IS_SLAVE", address])
        self.assertEqual(refused(self, "HOST_IS_SLAVE", Session, b.url, "root", "wrong"),
                         ["HOST_IS_SLAVE", address])
        member = Session.__new__(Session)
        member.__dict__.update(a.session.__dict__)
        member._server = type(a.session._server)(b.url, transport=Transport(30.0))
        for call in (member.VM.get_all, member.host.get_all_records, member.pool.get_all):
            self.assertEqual(refused(self, "HOST_IS_SLAVE", call), ["HOST_IS_SLAVE", address])

    def test_what_must_not_join_is_refused_and_stays_as_it_was(self):
        a = self.enterContext(Pool("A"))
        b = self.enterContext(Pool("B"))
        join = b.session.pool.join
        address = f"127.0.0.1:{a.port}"
        refused(self, "SESSION_AUTHENTICATION_FAILED", join, address, "root", "wrong")
        refused(self, "OPERATION_NOT_ALLOWED", join, f"127.0.0.1:{b.port}", "root", PASSWORD)
        refused(self, "CANNOT_CONTACT_HOST", join, "127.0.0.1:1", "root", PASSWORD)
        refused(self, "TLS_CONNECTION_FAILED", join, address, "root", PASSWORD, "0" * 64)
        refused(self, "MESSAGE_PARAMETER_COUNT_MISMATCH", join, address, "root")
        vm, _, _ = self.vm_on(b)
        b.session.VM.start(vm, False, False)
        refused(self, "JOINING_HOST_CANNOT_HAVE_RUNNING_VMS", join, address, "root", PASSWORD)
        b.session.VM.hard_shutdown(vm)
        self.assertEqual(len(a.session.host.get_all()), 1)
        self.assertEqual(len(b.session.host.get_all()), 1)
        # Nothing of all that is in its way.
        b.join(a)
        c = self.enterContext(Pool("C"))
        self.assertEqual(
            refused(self, "HOST_IS_SLAVE", c.session.pool.join, f"127.0.0.1:{b.port}", "root",
                    PASSWORD), ["HOST_IS_SLAVE", address])
        refused(self, "JOINING_HOST_CANNOT_BE_MASTER_OF_OTHER_HOSTS", a.session.pool.join,
                f"127.0.0.1:{c.port}", "root", PASSWORD)

    def test_a_member_is_one_after_a_restart(self):
        a, b = self.two()
        b.restart()
        a.restart()
        self.assertEqual(len(a.session.host.get_all()), 2)
        self.assertTrue(os.path.exists(b.path("state", "membership")))
        done = b.ferryd("--set-password", "root", input="another\n")
        self.assertEqual(done.returncode, 1)
        self.assertIn(a.url.removeprefix("https://"), done.stderr)
        self.assertFalse(os.path.exists(b.path("state", "pool.db")))
        self.assertEqual(os.stat(b.path("state", "membership")).st_mode & 0o777, 0o600)


class Dying(Base):
    """kill -9 of the host that joins or leaves, at any moment: it is in one pool, whole."""

    def join_and_die(self, a, b, delay):
        caller = threading.Thread(target=self.call_join, args=(a, b.session.other()))
        caller.start()
        time.sleep(delay)
        b.kill()
        caller.join()

    def call_join(self, a, session):
        try:
            session.pool.join(f"127.0.0.1:{a.port}", "root", PASSWORD)
        except (Failure, OSError, xmlrpc.client.ProtocolError, http.client.HTTPException):
            pass  # killed

    def started(self, a, b):
        """Starts it; whether it is a member."""
        b.coordinator = a
        with open(b.path("log"), "ab") as log:
            b.process = subprocess.Popen(
                [os.path.join(BIN, "ferryd"), "--config", b.path("ferryd.conf")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

        def answers():
            try:
                Session(b.url, "root", PASSWORD).close()
                return "own"
            except (OSError, xmlrpc.client.ProtocolError):
                return None
            except Failure as failure:
                return "member" if failure.code == "HOST_IS_SLAVE" else None
        is_member = wait_for("B answers", answers, 20) == "member"
        b.coordinator = a if is_member else None
        b.session = wait_for("B is what it is", b._try_login, 20)
        return is_member

    def test_a_host_that_dies_while_it_joins_is_in_one_pool(self):
        a = self.enterContext(Pool("A"))
        b = self.enterContext(Pool("B"))
        vm, vdi, _ = self.vm_on(b)
        uuid = b.session.VDI.get_uuid(vdi)
        for delay in (0.04, 0.08, 0.12, 0.16, 0.3):
            self.join_and_die(a, b, delay)
            is_member = self.started(a, b)
            self.assertEqual(len(a.session.host.get_all()), 2 if is_member else 1, delay)
            self.assertEqual(b.session.VDI.get_by_uuid(uuid), vdi)
            self.assertEqual(a.session.VM.get_by_name_label("guest"),
                             [vm] if is_member else [], delay)
            self.assertTrue(os.path.exists(b.vdi_path(vdi)))
            if is_member:
                a.session.pool.eject(b.host)
                b.left()

    def test_a_host_that_dies_while_it_leaves_is_in_one_pool(self):
        a, b = self.two()
        vm, vdi, _ = self.vm_on(b)
        uuid = a.session.VM.get_uuid(vm)
        for delay in (0.0, 1.0, 2.4):
            a.session.pool.eject(b.host)
            time.sleep(delay)
            b._forget_session()
            b.kill()
            self.assertFalse(self.started(a, b), delay)
            self.assertEqual(len(a.session.host.get_all()), 1)
            self.assertEqual(b.session.VM.get_by_uuid(uuid), vm)
            self.assertTrue(os.path.exists(b.vdi_path(vdi)))
            b.join(a)


class Working(Base):

    def test_a_member_does_what_the_coordinator_is_asked(self):
        a, b = self.two()
        vm, vdi, sr = self.vm_on(b)
        # The image lies in B's folder, and its pool.db is gone: it is the coordinator's object.
        self.assertTrue(b.vdi_path(vdi).startswith(b.root))
        self.assertFalse(os.path.exists(b.path("state", "pool.db")))
        a.session.VDI.resize(vdi, str(8 * MIB))
        self.assertEqual(os.path.getsize(b.vdi_path(vdi)), 8 * MIB)
        a.session.SR.scan(sr)

        a.session.VM.start(vm, False, False)
        self.assertEqual(self.state(a, vm), "Running")
        self.assertEqual(a.session.VM.get_resident_on(vm), b.host)
        self.assertEqual((len(a.guests()), len(b.guests())), (0, 1))
        a.session.VM.pause(vm)
        self.assertEqual(self.state(a, vm), "Paused")
        a.session.VM.unpause(vm)
        task = a.session.Async.VM.hard_shutdown(vm)
        wait_by_polling(a.session, task)
        self.assertEqual(self.state(a, vm), "Halted")
        self.assertEqual(b.guests(), [])
        refused(self, "VM_BAD_POWER_STATE", a.session.VM.pause, vm)

        a.session.VM.start_on(vm, b.host, True, False)
        self.assertEqual(self.state(a, vm), "Paused")
        # One that dies there is seen here.
        os.kill(b.guests()[0], 9)
        wait_for("the VM is Halted", lambda: self.state(a, vm) == "Halted", 10)
        a.session.VM.destroy(vm)
        path = b.vdi_path(vdi)
        a.session.VDI.destroy(vdi)
        self.assertFalse(os.path.exists(path))
        a.session.SR.destroy(sr)

    def test_a_refusal_of_a_member_comes_back_unchanged(self):
        a, b = self.two()
        vm, vdi, sr = self.vm_on(b)
        details = refused(self, "INVALID_VALUE", b.vdi_create, sr, 0)
        self.assertEqual(details[1], "virtual_size")
        refused(self, "SR_NOT_EMPTY", a.session.SR.destroy, sr)
        details = refused(self, "SR_BACKEND_FAILURE_91", b.session.SR.create, b.host,
                          {"location": "/nowhere"}, "0", "x", "", "file", "user", False, {})
        self.assertIn("/nowhere", details[2])
        a.session.VM.set_memory_limits(vm, *[str(1 << 50)] * 4)
        refused(self, "HOST_NOT_ENOUGH_FREE_MEMORY", a.session.VM.start, vm, False, False)
        self.assertEqual(self.state(a, vm), "Halted")
        self.assertEqual(a.session.VM.get_current_operations(vm), {})

    def test_events_tell_of_what_a_member_does(self):
        a, b = self.two()
        vm, _, _ = self.vm_on(b)
        listener = a.session.other()
        token = listener.call("event.from", ["VM"], "", 0.0)["token"]
        a.session.VM.start(vm, False, False)
        os.kill(b.guests()[0], 9)
        seen = []

        def halted():
            nonlocal token
            answer = listener.call("event.from", ["VM"], token, 5.0)
            token = answer["token"]
            seen.extend(e["snapshot"]["power_state"] for e in answer["events"]
                        if e["ref"] == vm and e["operation"] == "mod")
            return seen and seen[-1] == "Halted"
        wait_for("the end of the guest is an event", halted, 15)
        listener.close()

    def test_a_vm_of_another_pool_moves_to_a_member_and_back(self):
        a, b = self.two()
        c = self.enterContext(Pool("C"))
        vm, vdi, sr_c = self.vm_on(c, size=16 * MIB)
        c.vdi_write(vdi, os.urandom(3 * MIB), 5 * MIB)
        before = digest(c.vdi_path(vdi))
        sr_b = b.sr_create()
        there = Move(c, b, vm, sr_b).send()
        self.assertNotIn(vm, c.session.VM.get_all())
        disk = b.disks_of(there)[0]
        self.assertTrue(b.vdi_path(disk).startswith(b.root))
        self.assertEqual(digest(b.vdi_path(disk)), before)
        a.session.VM.start(there, False, False)
        self.assertEqual(a.session.VM.get_resident_on(there), b.host)
        a.session.VM.hard_shutdown(there)
        after = digest(b.vdi_path(disk))
        back = Move(b, c, there, sr_c)
        back.check()
        task = back.begin()
        wait_by_polling(b.session, task)
        self.assertEqual(b.session.task.get_status(task), "success")
        home = c.session.VM.get_all_records()
        home = [ref for ref, record in home.items() if record["name_label"] == "guest"]
        self.assertEqual(digest(c.vdi_path(c.disks_of(home[0])[0])), after)

    def test_a_guest_moves_live_to_a_member_and_back(self):
        a, b = self.two()
        c = self.enterContext(Pool("C"))
        vm, _, sr_c = self.vm_on(c)
        c.session.VM.start(vm, False, False)
        there = Move(c, b, vm, b.sr_create()).send()
        self.assertEqual(self.state(a, there), "Running")
        self.assertEqual(a.session.VM.get_resident_on(there), b.host)
        self.assertEqual((len(c.guests()), len(b.guests())), (0, 1))
        home = Move(b, c, there, sr_c).send()
        self.assertEqual(self.state(c, home), "Running")
        self.assertEqual((len(c.guests()), len(b.guests())), (1, 0))
        self.assertEqual(a.session.VM.get_by_name_label("guest"), [])
        c.session.VM.hard_shutdown(home)

    def test_a_migration_of_a_member_is_cancelled_at_the_coordinator(self):
        a, b = self.two()
        c = self.enterContext(Pool("C"))
        b.configure(migration_bandwidth="256KiB")
        b.restart()
        vm, vdi, _ = self.vm_on(b, size=16 * MIB)
        b.vdi_write(vdi, os.urandom(16 * MIB))
        task = Move(b, c, vm, c.sr_create()).begin()
        wait_for("it copies", lambda: float(a.session.task.get_progress(task)) > 0, 20)
        uuid = a.session.task.get_other_config(task)["ferry:migration"]
        a.session.migration.set_bandwidth(uuid, str(128 << 10))
        a.session.task.cancel(task)
        wait_for("it is cancelled", lambda: a.session.task.get_status(task) == "cancelled", 15)
        self.assertEqual(a.session.VM.get_current_operations(vm), {})
        self.assertEqual(c.session.VM.get_by_name_label("guest"), [])


    def slow_move(self, a, b, c):
        """A move from member b to pool c that is in the middle of its copy."""
        b.configure(migration_bandwidth="1MiB")
        b.restart()
        vm, vdi, _ = self.vm_on(b, size=8 * MIB)
        b.vdi_write(vdi, os.urandom(6 * MIB))
        before = digest(b.vdi_path(vdi))
        task = Move(b, c, vm, c.sr_create()).begin()
        wait_for("it copies", lambda: float(a.session.task.get_progress(task)) > 0, 20)
        return task, before

    def arrived(self, a, c, task, before):
        wait_for("it has moved", lambda: a.session.task.get_status(task) != "pending", 40)
        self.assertEqual(a.session.task.get_status(task), "success",
                         a.session.task.get_error_info(task))
        vm = c.session.VM.get_by_name_label("guest")[0]
        self.assertEqual(digest(c.vdi_path(c.disks_of(vm)[0])), before)
        self.assertEqual(a.session.VM.get_by_name_label("guest"), [])

    def test_a_migration_of_a_member_outlives_a_restart_of_the_coordinator(self):
        a, b = self.two()
        c = self.enterContext(Pool("C"))
        task, before = self.slow_move(a, b, c)
        b._forget_session()
        a.kill()
        a.start()
        self.assertEqual(a.session.task.get_status(task), "pending")
        b.session = Session(a.url, "root", PASSWORD)
        self.arrived(a, c, task, before)

    def test_a_migration_of_a_member_is_in_doubt_until_the_member_is_back(self):
        """Dead for longer than the coordinator takes to see it."""
        a, b = self.two()
        c = self.enterContext(Pool("C"))
        task, before = self.slow_move(a, b, c)
        (_, record), = a.session.migration.get_all_records().items()
        self.assertEqual((record["host"], record["in_doubt"]), (b.host, False))
        b.kill()

        def doubted():
            (_, now), = a.session.migration.get_all_records().items()
            return now["doubt"] if now["in_doubt"] else None
        self.assertIn("host-B", wait_for("it is in doubt", doubted, LIVE))
        self.assertIn("HOST_MOVE_IN_DOUBT", a.log())
        b.start()
        wait_for("it is not in doubt", lambda: not doubted(), LIVE)
        self.arrived(a, c, task, before)

    def test_three_hosts_work_at_once(self):
        a, b = self.two()
        c = self.enterContext(Pool("C"))
        c.join(a)
        vms = {pool: self.vm_on(pool, f"guest of {pool.name}")[0] for pool in (a, b, c)}
        tasks = [a.session.Async.VM.start(vm, False, False) for vm in vms.values()]
        for task in tasks:
            wait_by_polling(a.session, task)
        for pool, vm in vms.items():
            self.assertEqual(self.state(a, vm), "Running")
            self.assertEqual(a.session.VM.get_resident_on(vm), pool.host)
            self.assertEqual(len(pool.guests()), 1)
            self.assertEqual(a.session.VM.get_possible_hosts(vm), [pool.host])
        # One without a disk starts where it likes to.
        free = a.vm_create("anywhere", affinity=c.host)
        a.session.VM.set_memory_limits(free, *[str(MEMORY)] * 4)
        self.assertEqual(set(a.session.VM.get_possible_hosts(free)), {a.host, b.host, c.host})
        a.session.VM.start(free, False, False)
        self.assertEqual(a.session.VM.get_resident_on(free), c.host)
        a.session.host.disable(b.host)
        details = refused(self, "NO_HOSTS_AVAILABLE", self.restart_vm, a, vms[b])
        self.assertEqual(details[1], vms[b])
        a.session.host.enable(b.host)
        for vm in (vms[a], vms[c], free):
            a.session.VM.hard_shutdown(vm)
        for pool in (a, b, c):
            self.assertEqual(pool.guests(), [])

    def restart_vm(self, pool, vm):
        pool.session.VM.hard_shutdown(vm)
        pool.session.VM.start(vm, False, False)


class Failing(Base):

    def test_a_member_that_dies_is_not_live_until_it_is_back(self):
        a, b = self.two()
        vm, _, _ = self.vm_on(b)
        wait_for("B is live", lambda: self.live(a, b.host), 20)
        b.kill()
        wait_for("B is not live", lambda: not self.live(a, b.host), LIVE)
        details = refused(self, "NO_HOSTS_AVAILABLE", a.session.VM.start, vm, False, False)
        self.assertEqual(details[1], vm)
        refused(self, "HOST_OFFLINE", a.session.VM.start_on, vm, b.host, False, False)
        b.start()
        wait_for("B is live again", lambda: self.live(a, b.host), LIVE)
        a.session.VM.start(vm, False, False)
        a.session.VM.hard_shutdown(vm)

    def test_guests_of_a_member_live_on_without_the_coordinator(self):
        a, b = self.two()
        vm, _, _ = self.vm_on(b)
        other, _, _ = self.vm_on(b, "other")
        for each in (vm, other):
            a.session.VM.start(each, False, False)
        pids = set(b.guests())
        b._forget_session()
        a.kill()
        # What happens meanwhile is told when the coordinator is back.
        pid_of_other = [pid for pid in pids if self.names(b, pid, "other")][0]
        os.kill(pid_of_other, 9)
        wait_for("one is left", lambda: set(b.guests()) == pids - {pid_of_other}, 10)
        a.start()
        wait_for("the dead one is Halted", lambda: self.state(a, other) == "Halted", 30)
        self.assertEqual(self.state(a, vm), "Running")
        self.assertEqual(set(b.guests()), pids - {pid_of_other})
        b.session = Session(a.url, "root", PASSWORD)
        wait_for("B is live", lambda: self.live(a, b.host), LIVE)
        a.session.VM.hard_shutdown(vm)
        self.assertEqual(b.guests(), [])

    def names(self, pool, pid, label):
        with open(f"/proc/{pid}/cmdline", encoding="utf-8", errors="replace") as file:
            return f"guest={label}" in file.read() or f"-name\0{label}" in file.read()

    def test_a_member_started_without_its_coordinator_waits_for_it(self):
        a, b = self.two()
        vm, _, _ = self.vm_on(b)
        a.session.VM.start(vm, False, False)
        pids = b.guests()
        b._forget_session()
        b.kill()
        a.kill()
        with open(b.path("log"), "ab") as log:
            b.process = subprocess.Popen(
                [os.path.join(BIN, "ferryd"), "--config", b.path("ferryd.conf")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
        wait_for("it says that it waits", lambda: "COORDINATOR_AWAY" in self.log(b), 20)
        self.assertEqual(b.guests(), pids)
        a.start()
        b.session = wait_for("B is a member", b._try_login, 20)
        wait_for("B is live", lambda: self.live(a, b.host), LIVE)
        self.assertEqual(self.state(a, vm), "Running")
        self.assertEqual(b.guests(), pids)
        a.session.VM.hard_shutdown(vm)

    def log(self, pool):
        with open(pool.path("log"), encoding="utf-8", errors="replace") as file:
            return file.read()


class Leaving(Base):

    def test_an_ejected_host_keeps_its_disks_and_vms(self):
        a, b = self.two()
        vm, vdi, sr = self.vm_on(b)
        b.vdi_write(vdi, b"stays with B", 8192)
        before = digest(b.vdi_path(vdi))
        uuids = a.session.VM.get_uuid(vm), a.session.VDI.get_uuid(vdi)
        mine, _, _ = self.vm_on(a, "of A")
        # What a newer pool sent with it goes where it goes.
        kept = "<value><struct><member><name>of_tomorrow</name><value>1</value></member></struct></value>"
        self.sql(a, "UPDATE VM SET unknown_fields = ? WHERE ref = ?", kept, vm)
        a.session.VM.start(vm, False, False)
        refused(self, "HOST_HAS_RESIDENT_VMS", a.session.pool.eject, b.host)
        a.session.VM.hard_shutdown(vm)
        refused(self, "OPERATION_NOT_ALLOWED", a.session.pool.eject, a.host)
        refused(self, "HANDLE_INVALID", a.session.pool.eject, NULL)
        a.session.pool.eject(b.host)

        self.assertEqual(a.session.host.get_all(), [a.host])
        self.assertEqual(a.session.SR.get_by_name_label("SR of B"), [])
        self.assertEqual(a.session.VM.get_by_name_label("guest"), [])
        self.assertEqual(self.state(a, mine), "Halted")
        b.left()
        self.assertEqual(b.session.host.get_all(), [b.host])
        vm = b.session.VM.get_by_uuid(uuids[0])
        vdi = b.session.VDI.get_by_uuid(uuids[1])
        self.assertEqual(self.sql(b, "SELECT unknown_fields FROM VM WHERE ref = ?", vm), [(kept,)])
        self.assertEqual(digest(b.vdi_path(vdi)), before)
        b.session.VM.start(vm, False, False)
        b.session.VM.hard_shutdown(vm)
        self.assertEqual(b.leftovers(), [])
        # It may come back.
        b.join(a)
        self.assertEqual(a.session.VM.get_by_uuid(uuids[0]), vm)
        self.assertEqual(self.sql(a, "SELECT unknown_fields FROM VM WHERE ref = ?", vm), [(kept,)])

    def test_a_vm_with_disks_here_and_there_keeps_a_host(self):
        a, b = self.two()
        vm, _, _ = self.vm_on(b)
        disk = a.vdi_create(a.sr_create(), MIB)
        a.session.VBD.create({"VM": vm, "VDI": disk, "userdevice": "1", "bootable": False,
                              "mode": "RW", "type": "Disk", "unpluggable": True, "empty": False,
                              "other_config": {}, "qos_algorithm_type": "",
                              "qos_algorithm_params": {}})
        details = refused(self, "INTERNAL_ERROR", a.session.pool.eject, b.host)
        self.assertIn("guest", details[1])
        self.assertEqual(len(a.session.host.get_all()), 2)

    def test_a_host_that_was_away_learns_that_it_was_ejected(self):
        a, b = self.two()
        b._forget_session()
        b.kill()
        a.session.pool.eject(b.host)
        b.coordinator = None
        b.start()
        self.assertEqual(b.session.host.get_all(), [b.host])
        self.assertFalse(os.path.exists(b.path("state", "membership")))


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
