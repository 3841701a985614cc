#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""All that a user does with the command line, from the first trust to the move there and back,
against two real ferryd."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import BIN, GIB, MIB, NULL, PASSWORD, Pool, digest, give, wait_for

SIZE = 64 * MIB


class Cli(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="ferry-cli.")
        self.addCleanup(shutil.rmtree, self.folder)
        self.config = os.path.join(self.folder, "ferry.conf")
        self.stack = contextlib.ExitStack()
        self.addCleanup(self.stack.close)
        self.pools = {}
        for name in "AB":
            self.pools[name] = self.stack.enter_context(Pool(name))
            with open(os.open(self.config, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a",
                      encoding="utf-8") as file:
                file.write(f"[server {name}]\nurl = {self.pools[name].url}\nuser = root\n"
                           f"password = {PASSWORD}\n")

    def ferry(self, server, *args, code=0, given=""):
        done = subprocess.run([os.path.join(BIN, "ferry"), "--config", self.config,
                               *(["--server", server] if server else []), *args], check=False,
                              capture_output=True, text=True, timeout=120,
                              input=given, start_new_session=True)
        self.assertEqual(done.returncode, code, (args, done.stdout, done.stderr))
        return done.stderr if code else done.stdout

    def json(self, server, *args):
        return json.loads(self.ferry(server, "--json", *args))

    def make_repository(self, name):
        folder = self.pools[name].path("sr", "store")
        os.mkdir(folder, 0o750)
        give(folder)
        self.ferry(name, "sr", "create", "store", folder)
        return folder

    def join_pools(self):
        for name, pool in self.pools.items():
            self.ferry(None, "trust", name, "--fingerprint", pool.fingerprint())
        self.ferry("B", "pool", "join", "A")
        b = self.pools["B"]
        b.coordinator = self.pools["A"]
        b._forget_session()
        b.session = wait_for("B is a member", b._try_login, 20)
        wait_for("B is live", lambda: any(host["name_label"] == "host-B" and self.is_live(host)
                                          for host in self.json("A", "host", "list")), 20)

    def is_live(self, host):
        return self.pools["A"].session.host_metrics.get_live(host["metrics"])

    def test_a_vm_moves_within_a_pool_that_shares_a_repository(self):
        self.join_pools()
        a, b = self.pools["A"], self.pools["B"]
        shared, local, mine, empty = (tempfile.mkdtemp(dir=self.pools[name].path("sr")) for name in "AABB")
        for folder in (shared, local, mine, empty):
            give(folder)
        os.chmod(a.root, 0o755)
        self.ferry("A", "sr", "create", "shared", shared, "--shared")
        self.ferry("A", "sr", "create", "of-a", local)
        self.ferry("A", "sr", "create", "of-b", mine, "--host", "host-B")
        for args, text in (
                (["of-a", "--host", "host-B", "--location", empty], "--shared"),
                (["shared", "--host", "host-X"], "no host called"),
                (["shared", "--host", "host-B", "--location", empty], "mark")):
            self.assertIn(text, self.ferry("A", "sr", "attach", *args, code=1))
        self.assertEqual(len(self.json("A", "sr", "show", "shared")["PBDs"]), 1)
        self.ferry("A", "sr", "attach", "shared", "--host", "host-B")
        self.assertIn("host-B", self.ferry("A", "sr", "show", "shared"))

        for name, sr in (("one", "shared"), ("two", "of-a")):
            self.ferry("A", "vdi", "create", name, "--sr", sr, "--size", "4M")
        self.ferry("A", "vm", "create", "web", "--memory", "64M", "--disk", "one", "--disk", "two", "--network",
                   self.json("A", "network", "list")[0]["uuid"])
        for args, code, text in (
                ([], 2, "--to SERVER or --host HOST"),
                (["--host", "host-B", "--copy"], 2, "--copy is for a move to another pool"),
                (["--host", "nowhere"], 1, "could go to: host-A, host-B"),
                (["--host", "host-B", "--sr", "of-a"], 1, "not attached")):
            self.assertIn(text, self.ferry("A", "vm", "migrate", "web", *args, code=code))
        # The pool's default is the shared one, which was made first.
        plan = self.json("A", "vm", "migrate", "web", "--host", "host-B", "--dry-run")
        self.assertEqual({disk["to_sr"] for disk in plan["disks"]}, {"shared"})
        plan = self.json("A", "vm", "migrate", "web", "--host", "host-B", "--sr", "of-b", "--dry-run")
        self.assertEqual([(disk["from_sr"], disk["to_sr"]) for disk in plan["disks"]],
                         [("shared", "shared"), ("of-a", "of-b")])
        self.assertIn("within the pool", self.ferry("A", "vm", "migrate", "web", "--host", "host-B", "--dry-run"))
        self.ferry("A", "vm", "migrate", "web", "--host", "host-B", "--sr", "of-b")
        self.assertEqual((len(os.listdir(local)), len(os.listdir(mine)), len(os.listdir(shared))), (0, 1, 2))

        self.ferry("A", "vm", "start", "web")
        self.assertEqual(self.json("A", "vm", "show", "web")["resident_on"], b.host)
        self.assertIn("already", self.ferry("A", "vm", "migrate", "web", "--host", "host-B", code=1))
        self.ferry("A", "vm", "migrate", "web", "--host", "host-A", "--sr", "of-a")
        self.assertEqual(self.json("A", "vm", "show", "web")["resident_on"], a.host)
        a.session.host.disable(b.host)
        self.assertIn("disabled", self.ferry("A", "vm", "migrate", "web", "--host", "host-B", code=1))
        b.kill()
        wait_for("B is silent", lambda: not self.is_live(a.session.host.get_record(b.host)), 40)
        self.assertIn("not live", self.ferry("A", "vm", "migrate", "web", "--host", "host-B", code=1))
        b.start()
        self.ferry("A", "vm", "shutdown", "web", "--force")
        self.ferry("A", "sr", "detach", "shared", "--host", "host-B")
        self.assertIn("only one", self.ferry("A", "sr", "detach", "shared", "--host", "host-A", code=1))

    def test_a_host_joins_another_pool_and_leaves_it(self):
        a, b = self.pools["A"], self.pools["B"]
        for name, pool in self.pools.items():
            self.ferry(None, "trust", name, "--fingerprint", pool.fingerprint())
        self.assertIn("OPERATION_NOT_ALLOWED", self.ferry("B", "pool", "join", "B", code=1))
        self.ferry("B", "pool", "join", "A")
        b.coordinator = a
        b._forget_session()
        b.session = wait_for("B is a member", b._try_login, 20)
        rows = self.ferry("A", "host", "list").splitlines()
        self.assertEqual(len(rows), 3)
        self.assertIn("LIVE", rows[0])
        for name in "AB":
            self.assertIn(f"host-{name}", self.ferry("A", "pool", "show", "pool A"))
        self.assertIn("HOST_IS_SLAVE", self.ferry("B", "vm", "list", code=1))
        folder = b.path("sr", "store")
        os.mkdir(folder, 0o750)
        give(folder)
        self.ferry("A", "sr", "create", "store", folder, "--host", "host-B")
        self.ferry("A", "vdi", "create", "disk", "--sr", "store", "--size", "1M")
        self.assertEqual(len(os.listdir(folder)), 1)
        self.assertIn("coordinator", self.ferry("A", "pool", "eject", "host-A", code=1))
        self.ferry("A", "pool", "eject", "host-B")
        b.left()
        self.assertEqual(len(self.json("A", "host", "list")), 1)
        self.assertEqual(self.json("B", "vdi", "show", "disk")["virtual_size"], MIB)

    def copies(self, a, vm, before):
        """Of the halted VM "web", which is as it was in the end."""
        def digests(ref):
            return [digest(a.vdi_path(vdi)) for vdi in a.disks_of(ref)]
        snapshot = a.vm_by_uuid(self.ferry("A", "vm", "snapshot", "web", "kept").strip())
        clone = a.vm_by_uuid(self.json("A", "vm", "clone", "kept", "second")["uuid"])
        copy = a.vm_by_uuid(self.ferry("A", "vm", "copy", "web", "third", "--sr", "store").strip())
        self.assertEqual([digests(ref) for ref in (snapshot, clone, copy)], [before] * 3)
        self.assertIn("kept", self.ferry("A", "vm", "show", "web"))
        a.vdi_write(a.disks_of(vm)[0], b"changed")
        self.ferry("A", "vm", "snapshot-revert", "kept")
        self.assertEqual(digests(vm), before)
        for name in ("kept", "second", "third"):
            self.ferry("A", "vm", "destroy", name, "--with-disks")
        disk = a.session.VDI.get_uuid(a.disks_of(vm)[0])
        for arguments in (["clone", disk], ["snapshot", disk], ["copy", disk, "store"]):
            made = self.ferry("A", "vdi", *arguments).strip()
            self.assertEqual(digest(a.vdi_path(a.session.VDI.get_by_uuid(made))), before[0])
            self.ferry("A", "vdi", "destroy", made)

    def test_from_trust_to_the_move_there_and_back(self):
        a, b = self.pools["A"], self.pools["B"]
        self.assertIn("ferry trust A", self.ferry("A", "vm", "list", code=1))
        for name, pool in self.pools.items():
            self.ferry(None, "trust", name, "--fingerprint", pool.fingerprint())
        folders = {name: self.make_repository(name) for name in "AB"}
        self.ferry("A", "network", "create", "guests")
        self.ferry("A", "vdi", "create", "system", "--sr", "store", "--size", str(SIZE))
        self.ferry("A", "vdi", "create", "data", "--sr", "store", "--size", "20G")
        self.ferry("A", "vdi", "resize", "data", "21G")
        other = a.session.SR.get_uuid(a.sr_create("other"))
        self.ferry("A", "vdi", "migrate", "data", "other")
        self.assertIn("no SR", self.ferry("A", "vdi", "migrate", "data", "nowhere", code=1))
        self.assertIn("in that SR already", self.ferry("A", "vdi", "migrate", "data", other, code=1))
        self.ferry("A", "vdi", "migrate", "data", "store")
        self.ferry("A", "sr", "forget", "other")
        uuid = self.ferry("A", "vm", "create", "web", "--disk", "system", "--disk", "data",
                          "--network", "guests").strip()
        vm = a.vm_by_uuid(uuid)
        a.vdi_write(a.disks_of(vm)[0], os.urandom(SIZE // 2))
        before = [digest(a.vdi_path(vdi)) for vdi in a.disks_of(vm)]
        self.assertEqual(self.json("A", "vdi", "show", "data")["virtual_size"], 21 * GIB)

        self.copies(a, vm, before)

        move = ["vm", "migrate", "web", "--sr", "store"]
        b.session.pool.set_default_SR(b.session.pool.get_all()[0], NULL)
        self.assertIn("no default SR", self.ferry("A", *move[:3], "--to", "B", code=1))
        a.session.VM.add_to_blocked_operations(vm, "migrate_send", "not today")
        self.assertIn("not today", self.ferry("A", *move, "--to", "B", "--dry-run", code=1))
        a.session.VM.remove_from_blocked_operations(vm, "migrate_send")
        plan = self.json("A", *move, "--to", "B", "--dry-run")
        self.assertEqual([disk["virtual"] for disk in plan["disks"]], [SIZE, 21 * GIB])
        self.assertIsNotNone(a.vm_by_uuid(uuid), "a dry run moves nothing")
        result = self.json("A", *move, "--to", "B")
        self.assertEqual(result["vm"], uuid)
        self.assertEqual([disk["sent"] for disk in result["disks"]], [SIZE // 2, 0])
        shown = self.json("A", "migration", "show", result["migration"])
        self.assertEqual((shown["state"], shown["bytes_sent"]), ("DONE", SIZE // 2))
        self.assertEqual(self.json("A", "vm", "list"), [])
        self.assertEqual(os.listdir(folders["A"]), [])
        there = b.vm_by_uuid(uuid)
        self.assertEqual([digest(b.vdi_path(vdi)) for vdi in b.disks_of(there)], before)

        task = self.ferry("B", *move, "--to", "A", "--no-wait").strip()
        self.assertIn("success", self.ferry("B", "task", "wait", task))
        back = a.vm_by_uuid(uuid)
        self.assertEqual([digest(a.vdi_path(vdi)) for vdi in a.disks_of(back)], before)
        self.ferry("A", "vm", "destroy", "web", "--with-disks")
        self.assertEqual(os.listdir(folders["A"]), [])
        self.ferry("A", "sr", "destroy", "store")
        self.ferry("B", "sr", "forget", "store")
        for name in "AB":
            self.assertEqual(self.json(name, "sr", "list"), [])

    def test_users_do_what_their_role_allows(self):
        for name, pool in self.pools.items():
            self.ferry(None, "trust", name, "--fingerprint", pool.fingerprint())
            self.ferry(name, "user", "create", "robot", "--role", "vm-power-admin", given="secret\n")
            self.make_repository(name)
        self.ferry("A", "vdi", "create", "disk", "--sr", "store", "--size", "1M")
        self.ferry("A", "vm", "create", "web", "--disk", "disk")
        self.assertIn("last user", self.ferry("A", "user", "destroy", "root", code=1))
        self.assertIn("standard input", self.ferry("A", "user", "set-password", "robot", code=2))
        self.assertIn("read-only", self.ferry("A", "user", "create", "x", "--role", "guest", code=2, given="y\n"))

        admin, self.config = self.config, self.config + ".robot"
        with open(admin, encoding="utf-8") as file:
            text = file.read().replace("user = root", "user = robot").replace(PASSWORD, "secret")
        with open(os.open(self.config, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        denied = self.ferry("A", "sr", "destroy", "store", code=1)
        self.assertRegex(denied, r"SR.destroy: it is for the role pool-operator; user robot is vm-power-admin")
        self.assertIn("RBAC_PERMISSION_DENIED", self.ferry("A", "user", "create", "x", "--role", "read-only", code=1, given="y\n"))
        self.ferry("A", "vm", "migrate", "web", "--to", "B", "--sr", "store")
        self.assertEqual([vm["name_label"] for vm in self.json("B", "vm", "list")], ["web"])
        self.ferry("B", "user", "change-password", given="wrong\nnew\n", code=1)
        self.ferry("B", "user", "change-password", given="secret\nnew\n")
        self.assertIn("AUTHENTICATION", self.ferry("B", "vm", "list", code=1))

        self.config = admin
        self.ferry("A", "user", "set-role", "robot", "read-only")
        self.assertEqual(self.json("A", "user", "list"), {"robot": "read-only", "root": "pool-admin"})
        self.ferry("B", "user", "destroy", "robot")
        self.assertNotIn("robot", self.ferry("B", "user", "list"))

    def test_any_call_of_the_api(self):
        pool = self.pools["A"]
        self.ferry(None, "trust", "A", "--fingerprint", pool.fingerprint())
        record = json.dumps({"name_label": "web", "memory_static_max": str(64 * MIB)})
        vm = self.ferry("A", "api", "VM.create", record).strip()
        self.assertEqual(pool.session.VM.get_name_label(vm), "web")
        self.assertEqual(self.json("A", "api", "VM.create", record.replace("web", "other")),
                         pool.session.VM.get_by_name_label("other")[0])
        self.assertEqual(self.ferry("A", "api", "VM.set_name_label", vm, "a b"), "")
        self.assertEqual(self.json("A", "api", "VM.set_name_label", vm, '"5"'), "")
        self.assertEqual(pool.session.VM.get_name_label(vm), "5")
        self.ferry("A", "api", "VM.set_VCPUs_max", vm, "3")
        self.ferry("A", "api", "VM.set_is_a_template", vm, "true")
        self.assertEqual((pool.session.VM.get_VCPUs_max(vm), pool.session.VM.get_is_a_template(vm)), ("3", True))
        self.ferry("A", "api", "VM.add_to_other_config", vm, "k", "--", "-1")
        self.assertEqual(json.loads(self.ferry("A", "api", "VM.get_other_config", vm)), {"k": "-1"})
        self.assertIn("VM.create", json.loads(self.ferry("A", "api", "system.listMethods")))
        self.assertIn("HANDLE_INVALID", self.ferry("A", "api", "VM.get_record", "nobody", code=1))
        self.assertIn("MESSAGE_METHOD_UNKNOWN", self.ferry("A", "api", "VM.fly", code=1))
        self.assertIn("not JSON", self.ferry("A", "api", "VM.create", "{", code=2))
        self.assertIn("CALL is missing", self.ferry("A", "api", code=2))
        made = self.ferry("A", "api", "VM.create", record, "--async").strip()
        self.assertEqual(pool.session.VM.get_name_label(made), "web")
        self.assertIn("VM_BAD_POWER_STATE", self.ferry("A", "api", "VM.pause", made, "--async", code=1))
        self.assertEqual(pool.session.task.get_all(), [])
        words = subprocess.run([os.path.join(BIN, "ferry"), "__complete", "6", "--config", self.config, "--server", "A",
                                "api", "VM.migrate_"], check=True, capture_output=True, text=True, timeout=30).stdout
        self.assertEqual(words.split(), ["VM.migrate_send"])

    def test_what_the_daemon_refuses_is_told_in_words(self):
        for name, pool in self.pools.items():
            self.ferry(None, "trust", name, "--fingerprint", pool.fingerprint())
        self.make_repository("A")
        self.ferry("A", "vdi", "create", "disk", "--sr", "store", "--size", "1M")
        self.assertRegex(self.ferry("A", "sr", "destroy", "store", code=1),
                         re.compile(r"still holds disks \[SR_NOT_EMPTY\]\n.*sr forget", re.S))
        error = self.ferry("A", "sr", "create", "x", "/nonexistent", code=1)
        self.assertIn("/nonexistent", error)
        error = self.ferry("A", "vdi", "create", "empty", "--sr", "store", "--size", "0", code=1)
        self.assertIn("virtual_size", error)
        self.ferry("A", "vm", "create", "web", "--disk", "disk")
        # The destination has no such repository, and nothing has happened to the VM.
        self.assertIn('no SR called "store"',
                      self.ferry("A", "vm", "migrate", "web", "--to", "B", "--sr", "store", code=1))
        self.assertEqual(len(self.json("A", "vm", "list")), 1)
        self.assertIn("no migration", self.ferry(
            "A", "migration", "cancel", "11111111-2222-4333-8444-555555555555", code=1))


if __name__ == "__main__":
    unittest.main()
