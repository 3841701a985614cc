#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The coordinator of a pool is lost, or hands over: members keep copies of its database."""

import os
import re
import signal
import subprocess
import sys
import time
import unittest
import xmlrpc.client

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import BIN, NULL, PASSWORD, Pool, vm_record, wait_for  # noqa: E402
from poolcase import INTERVAL, SLACK, LocalSession, PoolCase, refused  # noqa: E402
from xensession import Failure, Session  # noqa: E402

LONG = os.environ.get("FERRY_LONG")


class Copies(PoolCase):

    def test_members_keep_what_the_coordinator_acknowledged(self):
        a, b, c = self.pools("A", "B", "C")
        for member in (b, c):
            wait_for("there is a copy", lambda: os.path.exists(self.copy(member)), 10)
            self.assertEqual(os.stat(self.copy(member)).st_mode & 0o777, 0o600)
        for number in range(3):
            vm = a.vm_create(f"guest {number}")
            for member in (b, c):
                wait_for("it has the VM", lambda: self.copied(member, vm), INTERVAL + SLACK)
        # Users are no objects, and make no generation.
        a.session.call("user.create", "later", PASSWORD, "read-only")
        for member in (b, c):
            wait_for("it has the user", lambda: self.ask_copy(
                member, "SELECT count(*) FROM users WHERE name = 'later'"), INTERVAL + SLACK)
            self.assertEqual(self.ask_copy(member, "PRAGMA integrity_check"), "ok")
        self.assertEqual([name for name in os.listdir(a.path("state")) if "handout" in name], [])

    def test_a_copy_ages_without_its_coordinator_and_ends_with_the_membership(self):
        a, b = self.pools("A", "B")
        wait_for("there is a copy", lambda: os.path.exists(self.copy(b)), 10)
        time.sleep(INTERVAL + SLACK)
        self.assertLess(time.time() - os.stat(self.copy(b)).st_mtime, INTERVAL + SLACK)
        vm = a.vm_create("before")
        wait_for("it has the VM", lambda: self.copied(b, vm), INTERVAL + SLACK)
        b._forget_session()
        a.kill()
        then = os.stat(self.copy(b))
        time.sleep(2 * INTERVAL)
        self.assertEqual(os.stat(self.copy(b)).st_mtime, then.st_mtime)
        self.assertEqual(os.listdir(b.path("state")).count("pool.copy.db.new"), 0)
        a.start()
        after = a.vm_create("after")
        wait_for("it has the next VM", lambda: self.copied(b, after), INTERVAL + SLACK + 5)
        a.session.pool.eject(b.host)
        b.left()
        self.assertFalse(os.path.exists(self.copy(b)))


class Lost(PoolCase):

    def test_another_takes_over_and_guests_do_not_notice(self):
        a, b, c = self.pools("A", "B", "C")
        running = {pool: self.vm_on(pool, f"guest of {pool.name}") for pool in (a, b, c)}
        for vm in running.values():
            a.session.VM.start(vm, False, False)
        pids = {pool: pool.guests() for pool in (a, b, c)}
        old = a.session.ref
        pool_ref = a.session.pool.get_all()[0]
        self.lose(a, b, c)

        done = b.ferry("pool", "emergency-transition")
        self.assertEqual(done.returncode, 0, done.stderr)
        age = int(re.search(r"is (\d+) s old", done.stderr).group(1))
        self.assertLessEqual(age, INTERVAL + 2 * SLACK)
        b.coordinator = None
        b.session = wait_for("B coordinates", b._try_login, 30)
        self.assertEqual(b.session.pool.get_master(pool_ref), b.host)
        for pool, vm in running.items():
            self.assertEqual(self.state(b, vm), ("Running", pool.host))
            self.assertEqual(pool.guests(), pids[pool])
        # A session outlives its coordinator.
        self.assertEqual(b.session.raw("VM.get_power_state", old, running[b]), "Running")

        done = b.ferry("pool", "recover-members")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{b.url}: 1;", done.stderr)
        self.followed(b, c)
        self.wait_live(b, c)
        self.assertEqual(pids[c], c.guests())
        b.session.VM.pause(running[c])
        b.session.VM.unpause(running[c])

        # The old one comes back. It does not rule, and says who does.
        a.coordinator = b
        a.start()
        self.assertEqual(refused(self, "HOST_IS_SLAVE", Session, a.url, "root", PASSWORD),
                         ["HOST_IS_SLAVE", f"127.0.0.1:{b.port}"])
        self.assertIn("COORDINATOR_OVERRULED", a.log())
        time.sleep(3)
        self.assertFalse(os.path.exists(a.path("state", "membership")))
        self.assertEqual(pids[a], a.guests())
        self.assertEqual(self.state(b, running[a]), ("Running", a.host))
        self.assertCountEqual(b.session.pool.recover_slaves(), [a.host, c.host])
        self.wait_live(b, a)
        self.assertEqual(pids[a], a.guests())
        for pool, vm in running.items():
            self.assertEqual(self.state(b, vm), ("Running", pool.host))
            b.session.VM.hard_shutdown(vm)
            self.assertEqual(pool.guests(), [])
        self.assertFalse(os.path.exists(a.path("state", "membership.overruled")))

    def test_what_the_copy_does_not_know_is_neither_killed_nor_started_twice(self):
        a, b, c = self.pools("A", "B", "C")
        for pool in (b, c):
            pool.configure(pool_copy_interval="1h")
            pool.restart()
        started, stopped = self.vm_on(c, "started"), self.vm_on(c, "stopped")
        a.session.VM.start(stopped, False, False)
        for pool in (b, c):
            pool.restart()
            wait_for("there is a copy", lambda: self.copied(pool, stopped), 10)
        time.sleep(1)
        a.session.VM.start(started, False, False)
        a.session.VM.hard_shutdown(stopped)
        created = self.vm_on(c, "created")
        a.session.VM.start(created, False, False)
        pids = set(c.guests())
        self.assertEqual(len(pids), 2)
        for pool in (a, b, c):
            pool._forget_session()
        a.kill()
        self.take_over(b)
        self.assertEqual(self.state(b, started), ("Halted", NULL))
        self.assertEqual(b.session.pool.recover_slaves(), [c.host])
        self.followed(b, c)
        self.wait_live(b, c)
        self.assertEqual(self.state(b, started), ("Running", c.host))
        self.assertEqual(self.state(b, stopped), ("Halted", NULL))
        refused(self, "HANDLE_INVALID", b.session.VM.get_power_state, created)
        self.assertEqual(set(c.guests()), pids)
        self.assertIn("guest.unknown", c.log())
        refused(self, "VM_BAD_POWER_STATE", b.session.VM.start, started, False, False)
        c.restart()
        self.assertEqual(set(c.guests()), pids)
        b.session.VM.hard_shutdown(started)
        self.assertEqual(len(c.guests()), 1)

    def test_a_coordinator_that_goes_in_the_middle_of_a_start_is_waited_for(self):
        a = self.enterContext(Pool("A"))
        b = self.enterContext(Pool("B", points=True)).join(a)
        self.wait_live(a, b)
        vm = self.vm_on(b)
        a.session.VM.start(vm, False, False)
        pids = b.guests()
        # Its firmware does not listen: A waits for B, which goes, and asks again and again.
        a.session.Async.VM.clean_shutdown(vm)
        wait_for("it is asked", lambda: "clean_shutdown" in a.session.VM.get_current_operations(vm).values(), 10)
        begun = len(a.log())
        b.kill()

        def said():
            return [line for line in a.log()[begun:].splitlines() if line.startswith("<4>") and "Pool." in line]
        wait_for("it is said", said, 20)
        # Once, however often it is tried.
        time.sleep(2)
        self.assertEqual(len(said()), 1, said())
        self.assertIn("POOL_CALLS_FAIL", said()[0])

        b.start()
        wait_for("B answers again", lambda: "POOL_CALLS_ANSWERED" in a.log(), 20)
        b.kill()

        b.points.arm("daemon.start.pool", "hang")
        self.launch(b)
        b.points.wait_for("daemon.start.pool")
        a._forget_session()
        a.kill()
        b.points.disarm("daemon.start.pool")
        wait_for("B waits", lambda: self.answers(b), 20)
        wait_for("it is said", lambda: "COORDINATOR_LOST" in b.log(), 20)
        a.start()
        b.session = wait_for("B is a member", b._try_login, 20)
        self.wait_live(a, b)
        self.assertEqual(b.guests(), pids)
        a.session.VM.hard_shutdown(vm)

    def launch(self, pool):
        with open(pool.path("log"), "ab") as log:
            pool.process = subprocess.Popen(
                [os.path.join(BIN, "ferryd"), "--config", pool.path("ferryd.conf")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")

    def answers(self, pool):
        try:
            Session(pool.url, "root", PASSWORD).close()
        except Failure as failure:
            return failure.code == "HOST_IS_SLAVE"
        except (OSError, xmlrpc.client.ProtocolError):
            return False
        return False

    if LONG:

        def test_members_that_start_without_the_coordinator_can_take_over(self):
            a, b, c = self.pools("A", "B", "C")
            vm = self.vm_on(c)
            a.session.VM.start(vm, False, False)
            pids = c.guests()
            self.lose(a, b, c)
            for pool in (b, c):
                pool.kill()
                self.launch(pool)
            for pool in (b, c):
                wait_for("it answers", lambda: self.answers(pool), 20)
            self.take_over(c)
            self.assertEqual(c.guests(), pids)
            self.assertEqual(c.session.pool.recover_slaves(), [b.host])
            self.followed(c, b)
            self.wait_live(c, b)
            c.session.VM.hard_shutdown(vm)

        def test_a_coordinator_that_was_only_cut_off_gives_way(self):
            a, b, c = self.pools("A", "B", "C")
            self.wait_live(a, b, c)
            time.sleep(INTERVAL + SLACK)
            a._forget_session()
            os.kill(a.process.pid, signal.SIGSTOP)
            try:
                for pool in (b, c):
                    pool._forget_session()
                self.take_over(b)
            finally:
                os.kill(a.process.pid, signal.SIGCONT)
            # It asks why nobody ticks, of one that knows.
            wait_for("A gives way", lambda: "COORDINATOR_OVERRULED" in a.log(), 30)
            wait_for("A sends clients to B", lambda: self.answers(a), 20)
            hosts = wait_for("B takes both in", lambda: (lambda told: len(told) == 2 and told)(
                b.session.pool.recover_slaves()), 20)
            self.assertCountEqual(hosts, [a.host, c.host])
            self.followed(b, a, c)
            self.wait_live(b, a, c)


class HandedOver(PoolCase):

    def designated(self, old, new, *others):
        """What the client did last is there, and the other hosts follow."""
        last = [old.session.VM.create(vm_record(f"VM {number}")) for number in range(3)]
        done = old.ferry("pool", "designate-coordinator", f"host-{new.name}")
        self.assertEqual(done.returncode, 0, done.stderr)
        for pool in (old, new, *others):
            pool._forget_session()
        new.coordinator = None
        new.session = wait_for(f"{new.name} coordinates", new._try_login, 30)
        self.followed(new, old, *others)
        self.wait_live(new, old, *others)
        self.assertEqual(new.session.pool.get_all_records().popitem()[1]["master"], new.host)
        for vm in last:
            new.session.VM.destroy(vm)
        task = [task for task in new.session.task.get_all_records().values()
                if task["name_label"] == "pool.designate_new_master"][-1]
        self.assertEqual(task["status"], "success", task["error_info"])

    def test_there_and_back_without_loss(self):
        a, b, c = self.pools("A", "B", "C")
        running = {pool: self.vm_on(pool, f"guest of {pool.name}") for pool in (a, b, c)}
        for vm in running.values():
            a.session.VM.start(vm, False, False)
        pids = {pool: pool.guests() for pool in running}
        refused(self, "OPERATION_NOT_ALLOWED", a.session.pool.designate_new_master, a.host)
        refused(self, "HANDLE_INVALID", a.session.pool.designate_new_master, NULL)
        self.designated(a, b, c)
        for pool, vm in running.items():
            self.assertEqual(self.state(b, vm), ("Running", pool.host))
            self.assertEqual(pool.guests(), pids[pool])
        b.session.VM.pause(running[a])
        b.session.VM.unpause(running[a])
        self.designated(b, a, c)
        for pool, vm in running.items():
            self.assertEqual(pool.guests(), pids[pool])
            a.session.VM.hard_shutdown(vm)
            self.assertEqual(pool.guests(), [])


class Refused(PoolCase):

    def test_nobody_takes_over_without_need(self):
        a, b = self.pools("A", "B")
        wait_for("there is a copy", lambda: os.path.exists(self.copy(b)), 10)
        details = refused(self, "NOT_IN_EMERGENCY_MODE",
                          a.session.pool.emergency_transition_to_master)
        self.assertIn("coordinator", details[1])
        refused(self, "NOT_IN_EMERGENCY_MODE", LocalSession, a.url)
        local = LocalSession(b.url)
        details = refused(self, "NOT_IN_EMERGENCY_MODE",
                          local.pool.emergency_transition_to_master)
        self.assertIn(f"127.0.0.1:{a.port}", details[1])
        # Its session is good for nothing else, and ends.
        refused(self, "HOST_IS_SLAVE", local.VM.get_all)
        refused(self, "HOST_IS_SLAVE", local.pool.recover_slaves)
        local.call("session.local_logout")
        refused(self, "SESSION_INVALID", local.pool.emergency_transition_to_master)
        refused(self, "SESSION_AUTHENTICATION_FAILED", LocalSession, b.url, "root", "wrong")
        refused(self, "SESSION_AUTHENTICATION_FAILED", LocalSession, b.url, "nobody", PASSWORD)
        a.session.call("user.create", "viewer", PASSWORD, "read-only")
        wait_for("the copy has the user", lambda: self.ask_copy(
            b, "SELECT count(*) FROM users WHERE name = 'viewer'"), INTERVAL + SLACK)
        refused(self, "RBAC_PERMISSION_DENIED",
                LocalSession(b.url, "viewer").pool.emergency_transition_to_master)
        self.assertEqual(a.session.pool.recover_slaves(), [b.host])
        self.assertEqual(len(a.session.host.get_all()), 2)
        self.assertTrue(os.path.exists(b.path("state", "membership")))

    def test_a_lone_host_and_one_without_a_copy_do_not_take_over(self):
        lone = self.enterContext(Pool("L"))
        refused(self, "NOT_IN_EMERGENCY_MODE", lone.session.pool.emergency_transition_to_master)
        self.assertEqual(lone.session.pool.recover_slaves(), [])
        a, b = self.pools("A", "B")
        wait_for("there is a copy", lambda: os.path.exists(self.copy(b)), 10)
        local = LocalSession(b.url)
        b._forget_session()
        a.kill()
        os.unlink(self.copy(b))
        details = refused(self, "OPERATION_NOT_ALLOWED",
                          local.pool.emergency_transition_to_master)
        self.assertIn("no copy", details[1])
        a.start()


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
