#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A peer that holds a token and means no good, or is broken: it costs its own migration at most. The daemon goes on, other
moves are served, and nothing of the attempt stays.

FERRY_SEED: other garbage; with FERRY_LONG each run has other garbage, and tells the seed.
"""

import copy
import http.client
import json
import os
import random
import ssl
import sys
import threading
import time
import unittest
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB, NULL, Pool
from xensession import Failure

SETTINGS = {
    "migration_heartbeat": "500ms",
    "migration_lease": "2s",
    "migration_abandon": "4s",
}
LONG = os.environ.get("FERRY_LONG")
SIZE = MIB
GARBAGE = [
    "", "-1", "x" * 100_000, "../../etc/passwd", "a,b\nc", "9223372036854775807", "18446744073709551616",
    -1, 0, 2**31 - 1, True, 3.5, [], {}, [[[[]]]], {"a": {"b": {}}}, NULL, "OpaqueRef:00000000-0000-0000-0000-000000000000",
]


def arguments(verb, *args):
    """Of a seal: the VM is as it was."""
    return args or {"seal": ({},)}.get(verb, ())


class Peer:
    """The sender's end of a migration, spoken by hand."""

    def __init__(self, pool):
        self.pool = pool
        self.token = pool.session.host.migrate_receive(pool.host, pool.network(), {})
        self.uuid = str(uuid.uuid4())

    def call(self, verb, *args):
        return self.pool.session.raw(f"Peer.{verb}", self.token["session_id"], self.uuid,
                                     *arguments(verb, *args))

    def prepare(self, manifest):
        return self.call("prepare", manifest)

    def abort(self):
        return self.call("abort", "test")


class Hostile(unittest.TestCase):
    def setUp(self):
        seed = int(os.environ.get("FERRY_SEED") or (time.time_ns() if LONG else 1))
        print(f"FERRY_SEED={seed}", flush=True)
        self.random = random.Random(seed)
        self.pool = self.enterContext(Pool("B", **SETTINGS))
        self.sr = self.pool.sr_create()
        self.guests = self.pool.network_create()
        self.arrived = 0
        self.addCleanup(self.assert_well)

    def assert_well(self):
        self.assertIsNone(self.pool.process.poll(), "ferryd has ended")
        self.pool.wait_for_no_leftovers(30)
        vms = {ref: record for ref, record in self.pool.session.VM.get_all_records().items()
               if not record["is_control_domain"]}
        self.assertEqual(len([vm for vm in vms.values() if not vm["is_a_snapshot"]]), self.arrived)
        used = {vbd["VDI"] for vbd in self.pool.session.VBD.get_all_records().values() if vbd["VM"] in vms}
        self.assertEqual(used - {NULL}, set(self.pool.session.VDI.get_all()))

    def manifest(self, n_disks=1):
        return {
            "protocol": "2", "data_tls": "on", "source_pool_uuid": str(uuid.uuid4()), "copy": False,
            "vm": {"uuid": str(uuid.uuid4()), "name_label": "guest", "power_state": "Halted"},
            "vbds": [{"disk": str(number), "userdevice": str(number), "type": "Disk", "mode": "RW"}
                     for number in range(n_disks)],
            "vifs": [{"network": self.guests, "device": "0", "MAC": "02:00:5e:00:00:01"}],
            "disks": [{"sr": self.sr, "uuid": str(uuid.uuid4()), "size": str(SIZE), "allocated": "0",
                       "fields": {"name_label": "disk"}} for _ in range(n_disks)],
        }

    def manifest_of_a_family(self):
        """A VM with a disk of its own, and a snapshot with one."""
        manifest = self.manifest(2)
        manifest["disks"][1].update(snapshot_of="0")
        manifest.update(parent="0", snapshots=[{
            "vm": {"uuid": str(uuid.uuid4()), "name_label": "kept", "power_state": "Halted", "is_a_snapshot": True,
                   "is_a_template": True},
            "vbds": [manifest["vbds"].pop() | {"userdevice": "0"}], "vifs": copy.deepcopy(manifest["vifs"]),
            "parent": "-1", "memory": "-1"}])
        return manifest

    def refused(self, call, *args):
        with self.assertRaises(Failure) as raised:
            call(*args)
        return raised.exception.details

    # --- manifests ---

    def test_a_right_manifest_is_served(self):
        """Without this, the refusals below would say nothing."""
        peer = Peer(self.pool)
        export, = peer.prepare(self.manifest())["exports"]
        self.assertEqual(int(export["size"]), SIZE)
        self.assertEqual(peer.abort()["decision"], "aborted")

    def test_disks_that_are_none(self):
        for member, value in [("size", "0"), ("size", "-512"), ("size", "513"), ("size", "1e9"), ("size", str(2**63)),
                              ("allocated", "-1"), ("uuid", "../../../../tmp/x"), ("uuid", ""), ("uuid", "A" * 36),
                              ("sr", "/tmp"), ("sr", "../sr"), ("sr", NULL), ("sr", [])]:
            manifest = self.manifest()
            manifest["disks"][0][member] = value
            with self.subTest(member=member, value=value):
                self.refused(Peer(self.pool).prepare, manifest)

    def test_a_disk_that_nothing_has(self):
        for manifest in (self.manifest(2), self.manifest_of_a_family()):
            vbds = manifest["vbds"] if "snapshots" not in manifest else manifest["snapshots"][0]["vbds"]
            vbds.pop()
            details = self.refused(Peer(self.pool).prepare, manifest)
            self.assertEqual(details[0], "INTERNAL_ERROR")
            self.assertIn("disk 1 is none of a VBD", details[1])

    def test_sizes_whose_sum_overflows(self):
        manifest = self.manifest(20)
        for disk in manifest["disks"]:
            disk["size"] = disk["allocated"] = str(2**63 - 512)
        self.assertEqual(self.refused(Peer(self.pool).prepare, manifest)[0], "SR_BACKEND_FAILURE_44")

    def test_more_disks_than_a_vm_can_have(self):
        self.assertIn("at most 255", self.refused(Peer(self.pool).prepare, self.manifest(256))[1])

    def test_texts_of_megabytes(self):
        manifest = self.manifest()
        manifest["vm"]["name_description"] = "x" * (9 << 20)
        self.assertIn("too many", self.refused(Peer(self.pool).prepare, manifest)[1])

    def test_a_vm_that_claims_to_run(self):
        manifest = self.manifest()
        manifest["vm"]["power_state"] = "Running"
        self.refused(Peer(self.pool).prepare, manifest)

    def test_what_cannot_be_imported_is_refused_before_disks_are_made(self):
        wrong = {"vm": {"VCPUs_max": "many", "uuid": "none", "other_config": "text", "tags": {}, "is_a_template": "yes",
                        "HVM_shadow_multiplier": []},
                 "vbds": {"disk": "7", "type": "Tape", "bootable": "no"},
                 "vifs": {"MTU": "much", "network": NULL}}
        for part, members in wrong.items():
            for member, value in members.items():
                manifest = self.manifest()
                target = manifest[part] if part == "vm" else manifest[part][0]
                target[member] = value
                with self.subTest(part=part, member=member):
                    self.refused(Peer(self.pool).prepare, manifest)
                    self.assertEqual(self.pool.leftovers(), [])

    def test_snapshots_that_are_none(self):
        for change in (lambda m, s: m.update(snapshots="x"), lambda m, s: m.update(snapshots=["x"]),
                       lambda m, s: m.update(parent="1"), lambda m, s: s.update(parent="7"),
                       lambda m, s: s.update(memory="2"), lambda m, s: m["disks"][1].update(snapshot_of="2"),
                       lambda m, s: s["vm"].update(is_a_snapshot=False), lambda m, s: s["vm"].update(power_state="Running"),
                       lambda m, s: s["vm"].update(uuid=m["vm"]["uuid"]), lambda m, s: s.update(vbds={}),
                       lambda m, s: s["vifs"][0].update(network=NULL), lambda m, s: s.pop("vm"),
                       lambda m, s: s.update(metrics="x"), lambda m, s: m["disks"][1].update(sr=NULL)):
            manifest = self.manifest_of_a_family()
            change(manifest, manifest["snapshots"][0])
            with self.subTest(manifest=manifest):
                self.refused(Peer(self.pool).prepare, manifest)
        self.assertEqual(self.pool.leftovers(), [])

    def test_a_seal_with_other_snapshots(self):
        peer = Peer(self.pool)
        manifest = self.manifest_of_a_family()
        peer.prepare(manifest)
        now = {name: manifest[name] for name in ("vm", "vbds", "vifs", "snapshots")}
        for change in (lambda s: s.clear(), lambda s: s.append(s[0]), lambda s: s[0].pop("vm"), lambda s: s[0].update(vbds=[]),
                       lambda s: s[0]["vm"].update(uuid=str(uuid.uuid4())), lambda s: s[0].update(parent="0"),
                       lambda s: s[0]["vm"].update(power_state="Running"), lambda s: s[0].update(memory="0")):
            other = copy.deepcopy(now)
            change(other["snapshots"])
            with self.subTest(manifest=other):
                self.refused(peer.call, "seal", other)
                self.assertEqual(peer.call("status")["state"], "RECEIVING")
        now["snapshots"][0]["vm"]["name_label"] = "renamed"
        self.assertEqual(peer.call("seal", now)["state"], "SEALED")
        self.assertEqual(peer.call("commit")["decision"], "committed")
        peer.call("finish")
        session = self.pool.session
        vm = self.pool.vm_by_uuid(now["vm"]["uuid"])
        snapshot, = session.VM.get_snapshots(vm)
        self.assertEqual((session.VM.get_name_label(snapshot), session.VM.get_parent(vm)), ("renamed", snapshot))
        self.assertEqual(session.VDI.get_snapshot_of(self.pool.disks_of(snapshot)[0]), self.pool.disks_of(vm)[0])
        self.arrived += 1

    def places(self, tree, path=()):
        """Paths of all members and items below a tree."""
        items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
        for key, value in items:
            yield (*path, key)
            yield from self.places(value, (*path, key))

    def test_garbage_anywhere(self):
        for _ in range(150):
            manifest = self.random.choice([*map(self.manifest, range(3)), self.manifest_of_a_family()])
            for _ in range(self.random.randint(1, 3)):
                *path, last = self.random.choice(list(self.places(manifest)) or [("vm",)])
                parent = manifest
                for key in path:
                    parent = parent[key]
                if self.random.random() < 0.2:
                    del parent[last]
                else:
                    parent[last] = copy.deepcopy(self.random.choice(GARBAGE))
            peer = Peer(self.pool)
            try:
                peer.prepare(manifest)
            except Failure as failure:
                self.assertNotIn("FIELD", failure.code)
            for verb in self.random.sample(["renew", "status", "seal", "commit", "finish"], 2):
                try:
                    self.arrived += peer.call(verb).get("decision") == "committed"
                except Failure:
                    pass
            try:
                peer.abort()
            except Failure:
                pass

    def test_what_json_can_say_and_xml_cannot(self):
        """A name that no XML can carry would make every later get_all_records fail."""
        manifest = self.manifest(0)
        manifest["vm"]["name_label"] = "a\u0001b\ufffe"
        peer = Peer(self.pool)
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "Peer.prepare",
                           "params": [peer.token["session_id"], peer.uuid, manifest]})
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", self.pool.port, context=context, timeout=30)
        self.addCleanup(connection.close)
        connection.request("POST", "/jsonrpc", body, {"Content-Type": "application/json"})
        json.loads(connection.getresponse().read())
        self.pool.session.migration.get_all_records()
        peer.abort()
        self.pool.session.migration.get_all_records()

    # --- calls ---

    def test_calls_out_of_order(self):
        for verb in ("seal", "renew", "finish", "commit"):
            peer = Peer(self.pool)
            with self.subTest(before="prepare", verb=verb):
                try:
                    self.assertNotEqual(peer.call(verb).get("decision"), "committed")
                except Failure:
                    pass
            peer = Peer(self.pool)
            peer.prepare(self.manifest())
            if verb in ("finish", "commit"):
                with self.subTest(before="seal", verb=verb):
                    self.refused(peer.call, verb)
                    self.assertEqual(peer.call("status")["state"], "RECEIVING")
                    self.assertEqual(len(peer.call("renew")["exports"]), 1)
            peer.abort()

    def test_calls_after_the_seal(self):
        peer = Peer(self.pool)
        manifest = self.manifest()
        peer.prepare(manifest)
        peer.call("seal")
        for late in (("prepare", manifest), ("renew",), ("finish",)):
            with self.subTest(verb=late[0]):
                self.refused(peer.call, *late)
                self.assertEqual(peer.call("status")["state"], "SEALED")
        self.assertEqual(peer.call("commit")["decision"], "committed")
        self.refused(peer.call, "prepare", manifest)
        self.assertEqual(peer.call("commit")["decision"], "committed")
        self.assertEqual(peer.abort()["decision"], "committed")
        peer.call("finish")
        self.assertEqual(len(self.pool.disks_of(self.pool.vm_by_uuid(manifest["vm"]["uuid"]))), 1)
        self.arrived += 1

    def test_spans_that_are_none(self):
        peer = Peer(self.pool)
        peer.prepare(self.manifest())
        for disk, span in (("-1", "0"), ("1", "0"), ("0", "-1"), ("0", "1"), ("0", str(2**62)), (str(2**62), "0")):
            with self.subTest(disk=disk, span=span):
                self.refused(peer.call, "digest", disk, span)
        peer.abort()

    def test_extents_that_are_none(self):
        peer = Peer(self.pool)
        peer.prepare(self.manifest())
        self.assertEqual(peer.call("digest_extents", "0", "0 4096 4096 512")["digests"], "0" * 64)
        for disk, extents in [("-1", "0 512"), ("1", "0 512")] + [("0", extents) for extents in (
                "", " ", "0", "0 ", " 0 512", "0 512 ", "0  512", "0 512 4096", "0,512", "0 -512", "-512 512", "+0 512",
                "0x0 512", "0 5e2", "0 0", "0 513", "1 512", f"0 {SIZE + 512}", f"{SIZE} 512", f"{2**64 - 512} 1024",
                f"{2**64} 512", f"0 {2**64}", "0 512\n", "0\t512", "9" * 10_000, " ".join(["0 512"] * 4097), "0 512 x")]:
            with self.subTest(disk=disk, extents=extents[:40]):
                self.refused(peer.call, "digest_extents", disk, extents)
        self.assertEqual(peer.call("status")["state"], "RECEIVING")
        peer.abort()
        self.refused(peer.call, "digest_extents", "0", "0 512")

    def test_a_seal_with_another_vm(self):
        peer = Peer(self.pool)
        manifest = self.manifest()
        peer.prepare(manifest)
        now = {name: manifest[name] for name in ("vm", "vbds", "vifs")}
        for change in (lambda m: m["vm"].update(uuid=str(uuid.uuid4())), lambda m: m.pop("vm"), lambda m: m.pop("vbds"),
                       lambda m: m.update(vifs={}), lambda m: m["vbds"].append(dict(m["vbds"][0])),
                       lambda m: m["vbds"][0].update(userdevice="7"), lambda m: m["vbds"][0].update(disk="-1"),
                       lambda m: m["vifs"][0].update(network=NULL), lambda m: m["vifs"].clear(),
                       lambda m: m.update(metrics="x"), lambda m: m.update(vm="x"), lambda m: m.update(vbds=["x"])):
            other = copy.deepcopy(now)
            change(other)
            with self.subTest(manifest=other):
                self.refused(peer.call, "seal", other)
                self.assertEqual(peer.call("status")["state"], "RECEIVING")
        now["vm"]["name_label"] = "renamed"
        self.assertEqual(peer.call("seal", now)["state"], "SEALED")
        self.assertEqual(peer.call("commit")["decision"], "committed")
        peer.call("finish")
        vm = self.pool.vm_by_uuid(now["vm"]["uuid"])
        self.assertEqual(self.pool.session.VM.get_name_label(vm), "renamed")
        self.arrived += 1

    # --- guests that run ---

    def live(self):
        manifest = self.manifest()
        manifest["live"] = True
        manifest["vm"].update(power_state="Running", memory_static_max=str(64 * MIB))
        return manifest

    def test_guests_that_find_no_place(self):
        for code, change in (("VM_MEMORY_SIZE_TOO_LOW", lambda m: m["vm"].update(memory_static_max="1024")),
                             ("HOST_NOT_ENOUGH_FREE_MEMORY", lambda m: m["vm"].update(memory_static_max=str(2**50))),
                             ("INVALID_VALUE", lambda m: m["vm"].update(PV_kernel="/nowhere/vmlinuz")),
                             ("INVALID_VALUE", lambda m: m["vm"].update(PV_kernel="../vmlinuz")),
                             ("OPERATION_NOT_ALLOWED", lambda m: m["vbds"][0].update(type="Floppy")),
                             (None, lambda m: m["vm"].update(power_state="Halted")),
                             (None, lambda m: m["vm"].update(power_state="Suspended")),
                             (None, lambda m: m.update(copy=True)), (None, lambda m: m.update(live="yes"))):
            manifest = self.live()
            change(manifest)
            for dry_run in (True, False):
                manifest["dry_run"] = dry_run
                with self.subTest(manifest=manifest):
                    details = self.refused(Peer(self.pool).prepare, manifest)
                    self.assertIn(code, (None, details[0]))
                    self.assertEqual(self.pool.leftovers(), [])

    def test_a_guest_for_a_vm_that_is_halted(self):
        peer = Peer(self.pool)
        peer.prepare(self.manifest())
        self.refused(peer.call, "incoming")
        self.assertNotIn("incoming", peer.call("status"))
        peer.abort()

    def test_a_guest_that_waits(self):
        peer = Peer(self.pool)
        peer.prepare(self.live())
        first, second = peer.call("incoming"), peer.call("incoming")
        self.assertEqual(first["door"], second["door"])
        self.assertNotEqual(first["secret"], second["secret"])
        self.assertEqual(peer.call("status")["incoming"], "waiting")
        self.assertEqual(len(self.pool.session.VM.get_all()), 1)
        self.assertEqual(peer.abort()["decision"], "aborted")
        self.assertEqual(self.pool.leftovers(), [])

    def test_a_guest_whose_sender_goes_away(self):
        for stage in ("incoming", "seal"):
            peer = Peer(self.pool)
            peer.prepare(self.live())
            peer.call("incoming")
            if stage == "seal":
                peer.call("seal")
                self.assertEqual(peer.call("status")["incoming"], "waiting")
                peer.abort()
        # assert_well waits until nothing is left

    def test_a_guest_without_its_memory(self):
        peer = Peer(self.pool)
        peer.prepare(self.live())
        self.assertEqual(peer.call("status")["incoming"], "none")
        peer.call("seal")
        self.refused(peer.call, "incoming")
        answer = peer.call("commit")
        self.assertEqual(answer["decision"], "aborted")
        self.assertIn("memory", answer["error"][1])
        self.assertEqual(peer.call("commit")["decision"], "aborted")

    def test_a_guest_that_ended_at_the_source(self):
        """It moves on as a halted VM: nobody waits for its memory any more."""
        peer = Peer(self.pool)
        manifest = self.live()
        peer.prepare(manifest)
        peer.call("incoming")
        now = {name: copy.deepcopy(manifest[name]) for name in ("vm", "vbds", "vifs")}
        for state in ("Suspended", "Paused", "", "halted"):
            now["vm"]["power_state"] = state
            self.refused(peer.call, "seal", now)
            self.assertEqual(peer.call("status")["incoming"], "waiting")
        now["vm"]["power_state"] = "Halted"
        self.assertEqual(peer.call("seal", now)["state"], "SEALED")
        self.assertEqual(self.pool.guests(), [])
        self.assertEqual(peer.call("commit")["decision"], "committed")
        peer.call("finish")
        self.assertEqual(self.pool.session.VM.get_power_state(self.pool.vm_by_uuid(now["vm"]["uuid"])), "Halted")
        self.arrived += 1

    def test_another_ones_migration(self):
        owner, thief = Peer(self.pool), Peer(self.pool)
        owner.prepare(self.manifest())
        thief.uuid = owner.uuid
        for call in (("renew",), ("seal",), ("commit",), ("abort", ""), ("status",), ("finish",), ("digest", "0", "0"),
                     ("digest_extents", "0", "0 512"), ("incoming",)):
            with self.subTest(verb=call[0]):
                self.assertEqual(self.refused(thief.call, *call)[0], "RBAC_PERMISSION_DENIED")
        self.assertEqual(owner.call("status")["state"], "RECEIVING")
        owner.abort()

    def bound(self, ref):
        return self.pool.session.session.get_other_config(ref)

    def test_only_what_was_prepared_is_bound_to_the_session(self):
        peer = Peer(self.pool)
        ref = peer.token["session_id"]
        before = self.bound(ref)
        for _ in range(20):
            peer.uuid = str(uuid.uuid4())
            for call in (("status",), ("renew",), ("digest", "0", "0"), ("digest_extents", "0", "0 512"), ("incoming",),
                         ("abort", "")):
                try:
                    peer.call(*call)
                except Failure:
                    pass
        self.assertEqual(self.bound(ref), before)
        peer.uuid = str(uuid.uuid4())
        peer.prepare(self.manifest())
        self.assertEqual(set(self.bound(ref)) - set(before), {peer.uuid})
        peer.abort()
        self.assertEqual(self.bound(ref), before)

    def test_everything_at_once(self):
        """Each call twice or more at the same moment: the same answers, one decision."""
        peer = Peer(self.pool)
        manifest = self.manifest(2)
        self.assertEqual(len(set(map(repr, self.together(peer, 4, "prepare", manifest)))), 1)
        self.assertEqual({answer["state"] for answer in self.together(peer, 4, "seal")}, {"SEALED"})
        answers = self.together(peer, 6, "commit") + self.together(peer, 2, "commit")
        self.assertEqual({answer["decision"] for answer in answers}, {"committed"})
        self.assertEqual(len({answer["vm"] for answer in answers}), 1)
        peer.call("finish")
        self.arrived += 1

    def test_commit_and_abort_at_once(self):
        for _ in range(10):
            peer = Peer(self.pool)
            manifest = self.manifest()
            peer.prepare(manifest)
            peer.call("seal")
            answers = []
            calls = [("commit",), ("abort", "race"), ("commit",)]
            self.random.shuffle(calls)
            self.at_once(peer, calls, answers)
            decisions = {answer["decision"] for answer in answers if "decision" in answer}
            self.assertEqual(len(decisions), 1, answers)
            arrived = self.pool.vm_by_uuid(manifest["vm"]["uuid"]) is not None
            self.assertEqual(decisions, {"committed" if arrived else "aborted"})
            if arrived:
                peer.call("finish")
                self.arrived += 1

    def at_once(self, peer, calls, answers):
        """Each by a connection of its own, which is open before the first is made."""
        gate = threading.Barrier(len(calls))
        sessions = [self.pool.session.other() for _ in calls]

        def run(session, call):
            gate.wait()
            try:
                answers.append(session.raw(f"Peer.{call[0]}", peer.token["session_id"], peer.uuid, *arguments(*call)))
            except Failure as failure:
                answers.append({"failure": failure.details})
        threads = [threading.Thread(target=run, args=pair) for pair in zip(sessions, calls)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for session in sessions:
            session.logout()

    def together(self, peer, n, *call):
        answers = []
        self.at_once(peer, [call] * n, answers)
        self.assertEqual([answer for answer in answers if "failure" in answer], [])
        return answers

    # --- silence ---

    def test_a_peer_that_goes_away(self):
        for stage in ("prepare", "renew"):
            peer = Peer(self.pool)
            peer.prepare(self.manifest())
            if stage == "renew":
                peer.call("renew")
        # assert_well waits until nothing is left


if __name__ == "__main__":
    unittest.main(verbosity=2)
