#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What XenAPI clients rely on between login and logout: calls, events, tasks and moves, seen
through a session like the one in XenAPI.py."""

import calendar
import json
import os
import re
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from contractcase import NOBODY, ORIGIN, Contract, login
from ferrytest import MIB, PASSWORD, Move, Pool
from rawhttp import Connection, json_call
from xenapistyle import Failure, Session


class Calls(Contract):
    """What scripts call."""

    def test_two_to_four_arguments_log_in(self):
        for more in ((), ("1.0",), ("1.0", "script")):
            session = login(self.a, *more)
            self.assertEqual(session.api_version, "2.23")
            me = session.handle
            self.assertEqual(session.xenapi.session.get_this_host(me), self.a.host)
            self.assertRegex(session.xenapi.session.get_uuid(me), "^[0-9a-f-]{36}$")
            session.xenapi.session.logout()
            session("close")()

    def test_a_lost_session_logs_in_again(self):
        lost = self.session.handle
        self.a.session.raw("session.logout", lost)
        self.assertEqual(self.api.pool.get_all(), self.a.session.pool.get_all())
        self.assertNotEqual(self.session.handle, lost)

    def test_a_wrong_password(self):
        session = Session(self.a.url)
        with self.assertRaises(Failure) as raised:
            session.xenapi.login_with_password("root", "wrong")
        self.assertEqual(raised.exception.details[:2], ["SESSION_AUTHENTICATION_FAILED", "root"])

    def test_maps_and_sets(self):
        pool = self.api.pool.get_all()[0]
        self.api.pool.add_to_other_config(pool, "k", "1")
        uuid = self.api.pool.get_uuid(pool)
        self.assert_fails(["MAP_DUPLICATE_KEY", "pool", "other_config", uuid, "k"],
                          self.api.pool.add_to_other_config, pool, "k", "2")
        self.api.pool.remove_from_other_config(pool, "k")
        self.api.pool.remove_from_other_config(pool, "k")
        self.assertNotIn("k", self.api.pool.get_other_config(pool))
        self.api.VM.add_tags(self.vm, "three")
        self.assertEqual(sorted(self.api.VM.get_tags(self.vm)), ["one", "three", "two"])
        self.api.VM.remove_tags(self.vm, "three")

    def test_the_default_repository(self):
        pool = self.api.pool.get_all()[0]
        self.api.pool.set_default_SR(pool, self.sr_a)
        self.assertEqual(self.api.pool.get_default_SR(pool), self.sr_a)
        self.assert_fails(["HANDLE_INVALID", "SR", NOBODY],
                          self.api.pool.set_default_SR, pool, NOBODY)

    def test_where_it_could_boot(self):
        host = self.a.host
        self.assertEqual(self.api.VM.get_possible_hosts(self.vm), [host])
        self.assertEqual(self.api.VM.assert_can_boot_here(self.vm, host), "")
        self.assert_fails(["HANDLE_INVALID", "host", NOBODY], self.api.VM.assert_can_boot_here, self.vm, NOBODY)
        self.api.host.disable(host)
        self.assert_fails(["HOST_DISABLED", host], self.api.VM.assert_can_boot_here, self.vm, host)
        self.api.host.enable(host)
        pbd, = self.api.SR.get_PBDs(self.sr_a)
        self.api.PBD.unplug(pbd)
        self.assert_fails(["VM_REQUIRES_SR", self.vm, self.sr_a], self.api.VM.assert_can_boot_here, self.vm, host)
        self.api.PBD.plug(pbd)
        huge = self.api.VM.create({"name_label": "huge", "memory_static_max": str(MIB << 30)})
        with self.assertRaises(Failure) as raised:
            self.api.VM.assert_can_boot_here(huge, host)
        self.assertEqual(raised.exception.details[:2], ["HOST_NOT_ENOUGH_FREE_MEMORY", str(MIB << 30)])
        self.api.VM.destroy(huge)

    def test_the_time_of_a_host(self):
        said = time.strptime(str(self.api.host.get_servertime(self.a.host)), "%Y%m%dT%H:%M:%SZ")
        self.assertLess(abs(calendar.timegm(said) - time.time()), 5)

    def test_looking_up(self):
        record = self.api.VM.get_record(self.vm)
        self.assertEqual(self.api.VM.get_by_uuid(record["uuid"]), self.vm)
        self.assertEqual(self.api.VM.get_by_name_label("still"), [self.vm])
        self.assertEqual(self.api.VM.get_by_name_label("nobody"), [])
        self.assertEqual(self.api.VM.get_all_records()[self.vm], record)
        where = f'field "name_label" = "still" and field "uuid" = "{record["uuid"]}"'
        self.assertEqual(self.api.VM.get_all_records_where(where), {self.vm: record})
        self.assertEqual(self.api.VM_get_record(self.vm), record)


class Events(Contract):
    def from_(self, classes, token="", timeout=0.0):
        return self.api.event_from(classes, token, timeout)

    def test_a_batch(self):
        batch = self.from_(["VM", "vm_METRICS"])
        self.assertEqual(set(batch), {"events", "valid_ref_counts", "token"})
        self.assertEqual({e["class"] for e in batch["events"]}, {"vm", "vm_metrics"})
        for event in batch["events"]:
            self.assertEqual(set(event), {"id", "timestamp", "class", "operation", "ref",
                                          "snapshot"})
            self.assertEqual((event["operation"], event["timestamp"]), ("add", "0.0"))
            self.assertTrue(event["id"].isdigit())
        snapshots = {e["ref"]: e["snapshot"] for e in batch["events"] if e["class"] == "vm"}
        self.assertEqual(snapshots, self.api.VM.get_all_records())

    def test_add_mod_del(self):
        token = self.from_(["VM"])["token"]
        vm = self.api.VM.create({"name_label": "passing", "memory_static_max": str(MIB << 6)})
        batch = self.from_(["VM"], token, 10.0)
        self.assertEqual([(e["operation"], e["ref"]) for e in batch["events"]], [("add", vm)])
        self.api.VM.set_name_label(vm, "passed")
        batch = getattr(self.api.event, "from")([f"VM/{vm}"], batch["token"], 10)
        event, = batch["events"]
        self.assertEqual((event["operation"], event["snapshot"]["name_label"]), ("mod", "passed"))
        self.api.VM.destroy(vm)
        event, = self.from_([f"vm/{vm}"], batch["token"], 10.0)["events"]
        self.assertEqual((event["class"], event["operation"], event["ref"], "snapshot" in event),
                         ("vm", "del", vm, False))

    def test_inject(self):
        for spelt in ("VM", "vm"):
            token = self.api.event.inject(spelt, self.vm)
            event, = self.from_(["VM"], token)["events"]
            self.assertEqual((event["operation"], event["ref"]), ("mod", self.vm))
        self.assert_fails(["HANDLE_INVALID", "pool", self.vm],
                          self.api.event.inject, "pool", self.vm)
        self.assertGreater(int(self.api.event.get_current_id()), 0)

    def test_registrations_of_older_scripts(self):
        nothing = ["SESSION_NOT_REGISTERED", self.session.handle]
        self.assert_fails(nothing, self.api.event.next)
        self.assert_fails(["EVENT_SUBSCRIPTION_PARSE_FAILURE", "a/b/c"], self.api.event.register, ["a/b/c"])
        self.assert_fails(nothing, self.api.event.next)
        self.api.event.register(["vm"])
        self.api.event.register(["SR", "VM"])
        self.api.VM.set_name_description(self.vm, "first")
        self.api.VM.set_name_description(self.vm, "second")
        self.api.SR.set_name_description(self.sr_a, "third")
        told = {e["ref"]: (e["class"], e["operation"], e["snapshot"]["name_description"]) for e in self.api.event.next()}
        self.assertEqual(told, {self.vm: ("vm", "mod", "second"), self.sr_a: ("sr", "mod", "third")})
        self.api.event.unregister(["sr", "VBD"])
        self.api.SR.set_name_description(self.sr_a, "fourth")
        other = self.a.session.other()
        later = threading.Timer(0.5, other.VM.set_name_description, (self.vm, "fifth"))
        begun = time.monotonic()
        later.start()
        event, = self.api.event.next()
        later.join()
        other.logout()
        self.assertGreater(time.monotonic() - begun, 0.4)
        self.assertEqual((event["ref"], event["snapshot"]["name_description"]), (self.vm, "fifth"))
        self.api.event.unregister(["Vm"])
        self.assert_fails(nothing, self.api.event.next)

    def test_logout_ends_a_registration(self):
        waiting = login(self.a)
        waiting.xenapi.event.register(["vbd"])
        with Connection(self.a.port) as wire:
            wire.send_post("/jsonrpc", json_call("event.next", waiting.handle))
            time.sleep(0.3)
            self.a.session.raw("session.logout", waiting.handle)
            answer = json.loads(wire.read_answer().body)
        self.assertEqual((answer["error"]["message"], answer["error"]["data"]),
                         ("SESSION_INVALID", [waiting.handle]))

    def test_all_tells_no_secrets(self):
        """A session's reference is all that one needs to use it."""
        self.assertNotIn(self.session.handle, repr(self.from_(["*"])))
        self.assertEqual(self.from_(["session"])["events"], [])

    def test_time_out(self):
        token = self.from_(["vbd"])["token"]
        begun = time.monotonic()
        self.assertEqual(self.from_(["vbd"], token, 0)["events"], [])
        self.assertLess(time.monotonic() - begun, 5)
        self.assertEqual(self.from_(["vbd"], token, 0.5)["events"], [])
        self.assertGreater(time.monotonic() - begun, 0.45)

    def test_logout_wakes(self):
        waiting = login(self.a)
        token = self.from_(["vbd"])["token"]
        with Connection(self.a.port) as wire:
            wire.send_post("/jsonrpc", json_call("event.from", waiting.handle, ["vbd"], token, 30))
            time.sleep(0.3)
            self.a.session.raw("session.logout", waiting.handle)
            answer = json.loads(wire.read_answer().body)
        self.assertEqual((answer["error"]["message"], answer["error"]["data"]),
                         ("SESSION_INVALID", [waiting.handle]))


class Moves(Contract):
    """With a pool to move VMs to."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.b = cls.enterClassContext(Pool("B"))
        cls.sr_b, cls.guests_b = cls.b.sr_create(), cls.b.network_create()

    def guest(self, label, size=MIB):
        vdi = self.a.vdi_create(self.sr_a, size)
        self.a.vdi_write(vdi, os.urandom(size))
        return self.a.vm_create(label, [vdi], [self.guests_a])

    def arguments(self, vm, **options):
        return Move(self.a, self.b, vm, self.sr_b, self.guests_b, options).arguments()

    def wait(self, task):
        """As most scripts do."""
        deadline = time.monotonic() + 60
        while self.api.task.get_status(task) == "pending":
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        return self.api.task.get_record(task)

    def begun(self, task):
        """Waits until some of it is done."""
        token = ""
        deadline = time.monotonic() + 60
        while float(self.api.task.get_progress(task)) < 0.1:
            self.assertLess(time.monotonic(), deadline)
            token = self.api.event_from([f"task/{task}"], token, 5.0)["token"]


class Tasks(Moves):
    """The life of a task, and moves as clients ask for them."""

    def test_a_move_seen_by_events_alone(self):
        """What npm xen-api does: it never polls."""
        vm = self.guest("watched", 8 * MIB)
        token = self.api.event_from(["task", "VM"], "", 0.0)["token"]
        task = self.api.Async.VM.migrate_send(*self.arguments(vm))
        seen = []
        while not seen or seen[-1]["status"] == "pending":
            batch = self.api.event_from(["task"], token, 30.0)
            self.assertTrue(batch["events"], "30 s without an event")
            token = batch["token"]
            self.assertEqual(batch["valid_ref_counts"]["task"], len(self.api.task.get_all()))
            seen += [e["snapshot"] for e in batch["events"] if e["ref"] == task and e["snapshot"]]
        progress = [record["progress"] for record in seen]
        self.assertEqual(progress, sorted(progress))
        first, last = seen[0], seen[-1]
        self.assertEqual((first["name_label"], first["type"], first["resident_on"],
                          first["result"], first["error_info"], first["allowed_operations"],
                          str(first["finished"])),
                         ("Async.VM.migrate_send", "<none/>", self.a.host,
                          "", [], ["cancel"], ORIGIN))
        self.assertEqual((last["status"], last["progress"], last["error_info"],
                          last["allowed_operations"], last["current_operations"]),
                         ("success", 1.0, [], [], {}))
        self.assertGreaterEqual(str(last["finished"]), str(last["created"]))
        arrived, = re.fullmatch("<value>(OpaqueRef:[0-9a-f-]+)</value>", last["result"]).groups()
        self.assertEqual(self.b.session.VM.get_name_label(arrived), "watched")
        self.api.task.destroy(task)
        events = self.api.event_from(["task"], token, 5.0)["events"]
        self.assertEqual([e["operation"] for e in events if e["ref"] == task], ["del"])
        for call in (self.api.task.get_record, self.api.task.cancel, self.api.task.destroy):
            self.assert_fails(["HANDLE_INVALID", "task", task], call, task)

    def test_the_vm_tells_of_its_move(self):
        vm = self.guest("told", 16 * MIB)
        task = self.api.Async.VM.migrate_send(*self.arguments(vm))
        self.begun(task)
        self.assertEqual(self.api.VM.get_current_operations(vm), {task: "migrate_send"})
        self.assert_fails(["OTHER_OPERATION_IN_PROGRESS", "VM", vm, "migrate_send", task],
                          self.api.VM.destroy, vm)
        self.assertEqual(self.wait(task)["status"], "success")
        self.assert_fails(["HANDLE_INVALID", "VM", vm], self.api.VM.get_record, vm)

    def test_a_synchronous_move_has_a_task_too(self):
        vm = self.guest("synchronous")
        before = set(self.api.task.get_all())
        self.api.VM.migrate_send(*self.arguments(vm))
        new = [self.api.task.get_record(t) for t in set(self.api.task.get_all()) - before]
        self.assertIn(("VM.migrate_send", "success"), [(t["name_label"], t["status"]) for t in new])

    def test_maps_of_later_versions_may_follow(self):
        for more in (({},), ({}, {})):
            arguments = self.arguments(self.guest("more"), force="true", compress="false")
            if len(more) == 1:
                self.assertEqual(self.api.VM.assert_can_migrate(*arguments, *more), "")
            task = self.api.Async.VM.migrate_send(*arguments, *more)
            self.assertEqual(self.wait(task)["status"], "success")

    def test_a_failure(self):
        arguments = list(self.arguments(self.guest("unmapped")))
        vdi, = arguments[3]
        arguments[3] = {}
        for method in (self.api.Async.VM.assert_can_migrate, self.api.Async.VM.migrate_send):
            record = self.wait(method(*arguments))
            self.assertEqual((record["status"], record["error_info"], record["progress"],
                              record["result"], record["allowed_operations"]),
                             ("failure", ["VDI_NOT_IN_MAP", vdi], 1.0, "", []))
            self.assertNotEqual(str(record["finished"]), ORIGIN)
        self.assert_fails(["VDI_NOT_IN_MAP", vdi], self.api.VM.migrate_send, *arguments)

    def test_cancel(self):
        vm = self.guest("cancelled", 32 * MIB)
        # So slow that it has not ended when the word arrives.
        task = self.api.Async.VM.migrate_send(*self.arguments(vm, bandwidth=str(2 * MIB)))
        self.begun(task)
        begun = time.monotonic()
        self.assertEqual(self.api.task.cancel(task), "")
        record = self.wait(task)
        self.assertLess(time.monotonic() - begun, 5)
        self.assertEqual((record["status"], record["progress"], record["error_info"],
                          record["result"], record["allowed_operations"]),
                         ("cancelled", 1.0, [], "", []))
        self.api.task.cancel(task)
        self.assertEqual(self.api.VM.get_current_operations(vm), {})
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()

    def test_a_token_serves_until_its_session_ends(self):
        """After a refusal, after a cancel, and for several VMs one after the other and at once."""
        token = self.arguments(self.vm)[1]

        def arguments(vm, **options):
            mine = self.arguments(vm, **options)
            return (vm, token, *mine[2:])
        again = self.guest("again", 32 * MIB)
        unmapped = list(arguments(again))
        unmapped[3] = {vdi: NOBODY for vdi in unmapped[3]}
        self.assert_fails(["HANDLE_INVALID", "SR", NOBODY], self.api.VM.migrate_send, *unmapped)
        task = self.api.Async.VM.migrate_send(*arguments(again, bandwidth=str(2 * MIB)))
        self.begun(task)
        self.api.task.cancel(task)
        self.assertEqual(self.wait(task)["status"], "cancelled")
        self.api.VM.migrate_send(*arguments(again))
        tasks = [self.api.Async.VM.migrate_send(*arguments(self.guest(f"one of {i}", 4 * MIB)))
                 for i in range(3)]
        self.assertEqual([self.wait(task)["error_info"] for task in tasks], [[], [], []])
        self.assertEqual(self.api.VM.assert_can_migrate(*arguments(self.vm)), "")

    def test_void_has_an_empty_value_as_its_result(self):
        task = self.api.Async.VM.assert_can_migrate(*self.arguments(self.guest("void")))
        self.assertEqual(self.wait(task)["result"], "<value></value>")
        with Connection(self.a.port) as wire:
            answer = json.loads(wire.post("/jsonrpc", json_call(
                "task.get_result", self.session.handle, task)).body)
        self.assertEqual(answer["result"], "<value></value>")

    def test_destroying_a_pending_task_does_not_stop_it(self):
        vm = self.guest("forgotten", 12 * MIB)
        uuid = self.api.VM.get_uuid(vm)
        task = self.api.Async.VM.migrate_send(*self.arguments(vm))
        self.begun(task)
        self.api.task.destroy(task)
        deadline = time.monotonic() + 30
        while task in self.api.task.get_all():
            self.assertLess(time.monotonic(), deadline)
            self.api.event_from([f"task/{task}"], self.api.event.inject("pool", self.pool()), 0.2)
        self.assertIsNotNone(self.b.vm_by_uuid(uuid))

    def pool(self):
        return self.api.pool.get_all()[0]

    def test_a_clients_own_task(self):
        task = self.api.task.create("mine", "of my own")
        self.api.task.set_progress(task, 0.5)
        self.api.task.add_to_other_config(task, "applies_to", self.api.VM.get_uuid(self.vm))
        self.assertEqual(self.api.task.get_by_name_label("mine"), [task])
        self.api.task.set_status(task, "success")
        record = self.api.task.get_record(task)
        self.assertEqual((record["status"], record["name_description"], record["progress"]),
                         ("success", "of my own", 1.0))
        self.api.task.destroy(task)


class NoQueue(Moves):
    """As a host of XenServer, which lets no move wait."""

    settings = {"migration_max_queued": 0}

    def test_the_fourth_move_at_once_is_refused(self):
        # So slow that none has ended when the fourth is asked for.
        vms = [self.guest(f"crowd {i}", 48 * MIB) for i in range(4)]
        arguments = [self.arguments(vm, bandwidth=str(MIB)) for vm in vms]
        tasks = [self.api.Async.VM.migrate_send(*each) for each in arguments[:3]]
        for task in tasks:
            self.begun(task)
        self.assertEqual(self.api.VM.assert_can_migrate(*arguments[3]), "")
        self.assert_fails(["TOO_MANY_STORAGE_MIGRATES", "3"],
                          self.api.VM.migrate_send, *arguments[3])
        for task in tasks:
            self.api.migration.set_bandwidth(self.api.task.get_other_config(task)["ferry:migration"], "0")
        for task in tasks:
            self.assertEqual(self.wait(task)["status"], "success")


class Crowd(Contract):
    """Many at once."""

    def test_a_hundred_wait_and_others_are_served(self):
        token = self.api.event_from(["VM"], "", 0.0)["token"]
        waiting = [self.enterContext(Connection(self.a.port)) for _ in range(100)]
        call = json_call("event.from", self.session.handle, ["VM"], token, 30)
        for wire in waiting:
            wire.send_post("/jsonrpc", call)
        begun = time.monotonic()
        for _ in range(20):
            self.api.VM.get_name_label(self.vm)
        self.assertLess(time.monotonic() - begun, 5)
        self.api.VM.set_name_description(self.vm, str(begun))
        for wire in waiting:
            event, = json.loads(wire.read_answer().body)["result"]["events"]
            self.assertEqual(event["snapshot"]["name_description"], str(begun))

    def test_sessions_share_a_pool(self):
        sessions = [login(self.a) for _ in range(10)]
        failures = []

        def use(session):
            try:
                for _ in range(20):
                    session.xenapi.VM.get_all_records()
                    session.xenapi.VM.set_user_version(self.vm, "2")
                session.xenapi.session.logout()
                session("close")()
            except Exception as error:
                failures.append(error)
        threads = [threading.Thread(target=use, args=(each,)) for each in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_a_big_answer(self):
        text = "x" * 200_000
        vms = [self.api.VM.create({"name_label": f"big {i}", "name_description": text}) for i in range(20)]
        records = self.api.VM.get_all_records()
        for vm in vms:
            self.api.VM.destroy(vm)
        self.assertEqual(sum(len(r["name_description"]) == len(text) for r in records.values()), 20)


if __name__ == "__main__":
    unittest.main(verbosity=2)
