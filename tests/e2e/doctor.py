#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`ferry doctor`: each kind of residue is planted, seen, and removed if it is a dead migration's; what only looks like it
is told and left."""

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import unittest
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import BIN, MIB, Failure, Move, Pool, daemon_user, give, wait_for  # noqa: E402
from livemove import left_in_qemu, qmp  # noqa: E402
from slowmove import SLOW, SlowMove  # noqa: E402
from xensession import wait_by_polling  # noqa: E402

DEAD = "00000000-dead-4000-8000-000000000001"


def demote():
    """Becomes the daemon's user."""
    if os.geteuid() == 0:
        user = daemon_user()
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)


class DoctorCase(unittest.TestCase):
    def setUp(self):
        super().setUp()
        self.a = self.enterContext(Pool("A", **SLOW))
        self.started = []
        self.addCleanup(self.end_processes)

    def end_processes(self):
        for process in self.started:
            process.kill()
            process.wait()

    def doctor(self, *options):
        done = self.a.ferry("--json", "doctor", *options)
        host, = json.loads(done.stdout)
        findings = host["findings"]
        left = [finding for finding in findings if not finding["fixed"]]
        self.assertEqual(done.returncode, 1 if left else 0, (done.stdout, done.stderr))
        return {(finding["kind"], finding["what"]): finding for finding in findings}

    def sql(self, name, *statement):
        db = sqlite3.connect(self.a.path("state", name), timeout=10)
        with contextlib.closing(db), db:
            db.execute(*statement)

    def journal(self, kind, name, detail=None, owner=DEAD):
        self.sql("agent.db", "INSERT INTO resources (owner, kind, name, detail) VALUES (?, ?, ?, ?)",
                 (owner, kind, name, json.dumps(detail or {})))

    def run_as_daemon(self, *argv, **environ):
        process = subprocess.Popen(argv, env=environ, cwd="/", preexec_fn=demote, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.started.append(process)
        return process

    def folder(self, *parts):
        path = self.a.path(*parts)
        os.makedirs(path, mode=0o700, exist_ok=True)
        give(path)
        return path

    def file(self, path, size=4096):
        with open(path, "wb") as file:
            file.truncate(size)
        give(path)
        return path

    def assert_removed(self, key, path=None):
        """Seen, removed, and not seen again."""
        seen = self.doctor()
        self.assertIn(key, seen)
        self.assertTrue(seen[key]["fixable"], seen[key])
        fixed = self.doctor("--fix")[key]
        self.assertTrue(fixed["fixed"], fixed)
        self.assertNotIn(key, self.doctor())
        if path:
            self.assertFalse(os.path.exists(path), path)

    def assert_left(self, *keys):
        """Seen, and neither offered for removal nor removed."""
        for findings in (self.doctor(), self.doctor("--fix")):
            for key in keys:
                self.assertIn(key, findings)
                self.assertFalse(findings[key]["fixable"] or findings[key]["fixed"], findings[key])


class Doctor(DoctorCase):
    def test_a_clean_host(self):
        self.a.vdi_create(self.a.sr_create(), MIB)
        self.assertEqual(self.doctor(), {})
        done = self.a.ferry("doctor")
        self.assertEqual((done.returncode, done.stdout), (0, "host-A: nothing found\n"))

    def test_files_in_a_repository(self):
        sr = self.a.sr_create()
        where = os.path.dirname(self.a.vdi_path(self.a.vdi_create(sr, MIB)))
        unknown = self.file(os.path.join(where, f"{uuid.uuid4()}.raw"))
        other = self.file(os.path.join(where, "notes.txt"))
        dead = self.file(os.path.join(where, "arriving.raw"))
        self.journal("vdi-file", dead, {"sr": sr, "location": "arriving.raw", "need_bytes": 0})
        self.assert_removed(("resource", dead), dead)
        self.assert_left(("file", os.path.basename(unknown)), ("file", "notes.txt"))
        self.assertTrue(os.path.exists(unknown) and os.path.exists(other))
        lost = self.a.vdi_create(sr, MIB)
        os.unlink(self.a.vdi_path(lost))
        self.assert_left(("disk", self.a.session.VDI.get_uuid(lost)))

    def test_an_image_that_a_dead_migration_and_a_disk_name_stays(self):
        sr = self.a.sr_create()
        vdi = self.a.vdi_create(sr, MIB)
        path = self.a.vdi_path(vdi)
        self.journal("vdi-file", path, {"sr": sr, "location": os.path.basename(path), "need_bytes": 0})
        self.assert_removed(("resource", path))
        self.assertTrue(os.path.exists(path))

    def test_processes_and_their_folders(self):
        dead = self.folder("run", f"t{DEAD[:13]}")
        self.journal("tgtd", dead)
        process = self.run_as_daemon("/usr/sbin/tgtd", "-f", "-C", "0", "--iscsi", "portal=127.0.0.1:0",
                                     TGT_IPC_SOCKET=f"{dead}/s")
        wait_for("tgtd is up", lambda: os.path.exists(f"{dead}/s.0"), 10)
        # Of another folder, of no folder of the journal, and no tgtd but by its name.
        other = self.folder("elsewhere")
        stranger = self.run_as_daemon("/usr/sbin/tgtd", "-f", "-C", "0", "--iscsi", "portal=127.0.0.1:0",
                                      TGT_IPC_SOCKET=f"{other}/s")
        unknown = self.folder("run", "t11111111-2222")
        alike = self.a.path("tgtd")
        shutil.copy("/bin/sleep", alike)
        named = self.run_as_daemon(alike, "1000", TGT_IPC_SOCKET=f"{dead}/s")
        seen = self.doctor()
        self.assertTrue(seen["process", str(process.pid)]["fixable"])
        self.assertFalse(seen["process", str(named.pid)]["fixable"])
        self.assertNotIn(("process", str(stranger.pid)), seen)
        fixed = self.doctor("--fix")
        self.assertTrue(fixed["process", str(process.pid)]["fixed"])
        self.assertTrue(fixed["resource", dead]["fixed"], fixed)
        self.assertEqual(process.wait(5), -signal.SIGKILL)
        self.assertFalse(os.path.exists(dead))
        self.assertIsNone(stranger.poll())
        self.assertIsNone(named.poll())
        self.assertTrue(os.path.exists(unknown))
        self.assert_left(("folder", "t11111111-2222"), ("process", str(named.pid)))

    def test_rows(self):
        self.journal("bitmaps", DEAD)
        self.journal("strange", "thing", owner=str(uuid.uuid4()))
        self.sql("agent.db", "INSERT INTO migrations (uuid, role, state, document, created, finished)"
                 " VALUES (?, 'sender', 'FAILED', '{}', 1, 1)", (DEAD,))
        vm, vdi = self.a.vm_create("guest"), self.a.vdi_create(self.a.sr_create(), MIB)
        token = self.a.session.host.migrate_receive(self.a.host, self.a.network(), {})
        old, recent = str(uuid.uuid4()), str(uuid.uuid4())
        self.a.stop()
        for kind, ref, operation in (("VM", vm, "migrate_send"), ("VDI", vdi, "mirror")):
            self.sql("pool.db", f'UPDATE "{self.table(kind)}" SET current_operations = ? WHERE ref = ?',
                     (json.dumps({f"OpaqueRef:{DEAD}": operation}), ref))
        self.sql("pool.db", f'UPDATE "{self.table("session")}" SET other_config = ? WHERE ref = ?',
                 (json.dumps({"ferry:migration": "", DEAD: ""}), token["session_id"]))
        for migration, days in ((old, 40), (recent, 1)):
            self.sql("pool.db", "INSERT INTO commits (migration, committed, decided_at)"
                     " VALUES (?, 0, unixepoch() - ?)", (migration, days * 86400))
        self.a.start()
        # A session of a decided migration is how its sender learns what was decided.
        found = self.doctor()
        kinds = sorted(kind for kind, _ in found)
        self.assertEqual(kinds, ["mark", "mark", "migration", "resource", "resource", "session"], found)
        self.assertFalse(self.has_commit(old))  # pruned by itself
        self.assertTrue(self.has_commit(recent))
        fixed = self.doctor("--fix")
        self.assertIn("nothing here knows", fixed["resource", "thing"]["error"])
        self.assertEqual([key for key, finding in fixed.items() if not finding["fixed"]], [("resource", "thing")])
        self.assertEqual(self.a.session.VM.get_current_operations(vm), {})
        self.assertIn("start", self.a.session.VM.get_allowed_operations(vm))
        self.assertEqual(self.a.session.VDI.get_current_operations(vdi), {})
        self.assertEqual(list(self.doctor()), [("resource", "thing")])

    def table(self, kind):
        db = sqlite3.connect(f"file:{self.a.path('state', 'pool.db')}?mode=ro", uri=True)
        with contextlib.closing(db):
            names = [name for name, in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return next(name for name in names if name in (kind, f"class_{kind}", f"o_{kind}", f"{kind}s"))

    def has_commit(self, migration):
        db = sqlite3.connect(f"file:{self.a.path('state', 'pool.db')}?mode=ro", uri=True)
        with contextlib.closing(db):
            return bool(db.execute("SELECT 1 FROM commits WHERE migration = ?", (migration,)).fetchone())

    def test_inside_a_guest(self):
        vdi = self.a.vdi_create(self.a.sr_create(), 16 * MIB)
        vm = self.a.vm_create("guest", [vdi])
        self.a.session.VM.set_memory_limits(vm, *[str(32 * MIB)] * 4)
        self.a.session.VM.start(vm, True, False)
        self.addCleanup(self.a.session.VM.hard_shutdown, vm)
        guest = self.a.session.VM.get_uuid(vm)
        self.assertEqual(self.doctor(), {})
        watchdog = self.run_as_daemon(
            os.path.join(BIN, "ferry-watchdog"), "--run-dir", self.a.path("run", "guests", guest), "--vm", guest,
            "--budget-usec", "60000000")
        wait_for("it watches", lambda: os.path.exists(self.a.path("run", "guests", guest, "watchdog")), 10)
        watchdog.send_signal(signal.SIGSTOP)  # else it ends when no agent comes to it
        self.assert_removed(("process", str(watchdog.pid)))
        self.assertEqual(watchdog.wait(5), -signal.SIGKILL)
        ours, foreign = f"ferry.ferry-{DEAD}.d0.1", "backup-1"
        node, = {block["inserted"]["node-name"] for block in qmp(self.a, guest, "query-block") if block.get("inserted")}
        for name in (ours, foreign):
            qmp(self.a, guest, "block-dirty-bitmap-add", node=node, name=name, granularity=65536)
        qmp(self.a, guest, "blockdev-add", driver="null-co", size=MIB, **{"node-name": "ferry.0123456789abcdef"})
        self.assert_removed(("bitmap", ours))
        findings = self.doctor()
        self.assertEqual(list(findings), [("bitmap", foreign)])
        self.assert_left(("bitmap", foreign))
        qmp(self.a, guest, "block-dirty-bitmap-remove", node=node, name=foreign)
        self.assertEqual(self.doctor(), {})


def findings_of(pool, *options):
    """What the command says of the pool's only host."""
    host, = json.loads(pool.ferry("--json", "doctor", *options).stdout)
    return {(finding["kind"], finding["what"]): finding for finding in host["findings"]}


def forget_in_journal(pool, *tables):
    """As when agent.db is an old copy of itself. The daemon does not run."""
    db = sqlite3.connect(pool.path("state", "agent.db"), timeout=10)
    with contextlib.closing(db), db:
        db.execute("PRAGMA foreign_keys = ON")
        for table in tables:
            db.execute(f"DELETE FROM {table}")


class DiskMove(unittest.TestCase):
    """The file that a moved disk leaves cannot be removed: the move ends, and its row stays."""

    def test_a_row_that_outlived_its_move(self):
        a = self.enterContext(Pool("A", points=True))
        one, two = a.sr_create("one"), a.sr_create("two")
        vdi = a.vdi_create(one, MIB)
        path = a.vdi_path(vdi)
        a.points.arm("disk.remove", "error EIO always")
        a.session.VDI.pool_migrate(vdi, two, {})
        self.assertGreater(a.points.passed("disk.remove"), 0)
        self.assertIn("VDI-MOVE-LEFTOVER", a.log())
        self.assertEqual(a.session.VDI.get_SR(vdi), two)
        seen = findings_of(a)
        self.assertIn("vdi-move of migration", seen["resource", vdi]["why"])
        self.assertTrue(all(finding["fixable"] for finding in seen.values()), seen)
        refused = findings_of(a, "--fix")["resource", vdi]
        self.assertFalse(refused["fixed"])
        self.assertIn("Input/output error", refused["error"])
        self.assertTrue(os.path.exists(path))
        a.points.clear()
        fixed = findings_of(a, "--fix")
        self.assertTrue(fixed["resource", vdi]["fixed"], fixed)
        self.assertEqual(findings_of(a), {})
        self.assertFalse(os.path.exists(path))
        self.assertTrue(os.path.exists(a.vdi_path(vdi)))
        self.assertEqual(a.session.VDI.get_current_operations(vdi), {})
        self.assertEqual(a.leftovers(), [])


class LiveMove(unittest.TestCase):
    """A guest with an image that QEMU reads for the move."""

    def setUp(self):
        super().setUp()
        self.a = self.enterContext(Pool("A", points=True, **{**SLOW, "migration_bandwidth": "16MiB"}))
        self.b = self.enterContext(Pool("B", **SLOW))
        self.sr_b = self.b.sr_create()
        vdi = self.a.session.VDI.create({
            "name_label": "disk", "SR": self.a.sr_create(), "virtual_size": str(16 * MIB), "type": "user",
            "sharable": False, "read_only": False, "other_config": {}, "sm_config": {"image-format": "qcow2"}})
        path = self.a.vdi_path(vdi)
        subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -q -P 5 0 16M", path], check=True)
        self.vm = self.a.vm_create("guest", [vdi])
        self.a.session.VM.set_memory_limits(self.vm, *[str(32 * MIB)] * 4)
        self.a.session.VM.start(self.vm, False, False)
        self.uuid = self.a.session.VM.get_uuid(self.vm)
        self.addCleanup(self.end_guest)

    def end_guest(self):
        self.a.points.clear()
        for pool in (self.a, self.b):
            vm = pool.vm_by_uuid(self.uuid)
            if vm:
                pool.session.VM.hard_shutdown(vm)

    def go_to(self, state):
        """Until the sender is about to act in that state. What both hosts have is left alone on the way there."""
        self.a.points.arm(f"sender.{state}", "hang")
        # A look by the doctor takes a second, and one of these must fall into the copy.
        task = Move(self.a, self.b, self.vm, self.sr_b, options={"bandwidth": str(2 * MIB)}).begin()
        exports = set()
        while not self.a.points.passed(f"sender.{state}"):
            self.assertEqual(self.a.session.task.get_status(task), "pending", self.a.session.task.get_error_info(task))
            states = {record["state"] for record in self.a.session.migration.get_all_records().values()}
            if "COPYING" in states:  # later the watchdog has that monitor
                exports |= {export["id"] for export in qmp(self.a, self.uuid, "query-block-exports")}
            for pool in (self.a, self.b):
                self.assertEqual(pool.session.doctor.fix(pool.host), [])
        self.assertTrue([name for name in exports if name.startswith("ferry-image.")], exports)
        return task

    def assert_fixed(self, pool, *kinds):
        """These kinds are found, and all is removed."""
        seen = findings_of(pool)
        self.assertLessEqual(set(kinds), {kind for kind, _ in seen}, seen)
        self.assertTrue(all(finding["fixable"] for finding in seen.values()), seen)
        fixed = findings_of(pool, "--fix")
        self.assertTrue(all(finding["fixed"] for finding in fixed.values()), fixed)
        self.assertEqual(findings_of(pool), {})
        return seen

    def test_what_dead_ones_leave(self):
        self.an_export_that_one_left_in_the_guest()
        self.the_guest_that_one_brought()

    def an_export_that_one_left_in_the_guest(self):
        """QEMU did not end it when it was told to."""
        self.a.points.arm("qmp.block-export-del.before", "error EIO always")
        task = self.go_to("CONVERGING")
        self.assertIn("guest.export_left", self.a.log())
        self.a.points.disarm("qmp.block-export-del.before")
        self.a.session.task.cancel(task)
        with self.assertRaises(Failure):
            wait_by_polling(self.a.session, task, 30)
        self.a.points.clear()
        wait_for("the move is dead", lambda: findings_of(self.a), 20)
        export, = left_in_qemu(self.a, self.uuid)
        (kind, name), = self.assert_fixed(self.a, "nbd-export")
        self.assertEqual((export, kind), (f"export {name}", "nbd-export"))
        self.assertEqual(left_in_qemu(self.a, self.uuid), [])
        self.assertEqual(self.a.session.VM.get_power_state(self.vm), "Running")
        self.b.wait_for_no_leftovers()

    def the_guest_that_one_brought(self):
        """The source waits for the commit; the doctor's word is what it hears."""
        task = self.go_to("COMMITTING")
        incoming, = self.b.guests()
        self.b.kill()
        self.assertEqual(self.b.guests(), [incoming])
        forget_in_journal(self.b, "migrations")
        self.b.start()
        seen = self.assert_fixed(self.b, "resource")
        self.assertEqual({kind for kind, _ in seen}, {"resource"})
        self.assertIn(("resource", self.b.path("run", "guests", self.uuid)), seen)
        self.assertEqual(self.b.guests(), [])
        self.b.wait_for_no_leftovers()
        self.a.points.clear()
        with self.assertRaises(Failure):
            wait_by_polling(self.a.session, task, 30)
        wait_for("the guest runs on", lambda: qmp(self.a, self.uuid, "query-status")["running"], 10)
        self.assertEqual(self.a.session.VM.get_power_state(self.vm), "Running")
        self.a.wait_for_no_leftovers(running=[self.uuid])


class Living(SlowMove):
    def test_what_is_in_a_tgtd_and_not_its_own(self):
        """It is told, and goes with that tgtd."""
        task = self.begin_and_wait_for_the_middle()
        tgtd, = self.b.tgtds()
        with open(f"/proc/{tgtd}/environ", encoding="ascii") as file:
            variables = dict(entry.split("=", 1) for entry in file.read().split("\0") if "=" in entry)
        for words in (("target", "new", "--tid", "77", "-T", "iqn.2020-01.org.example:other"),
                      ("account", "new", "--user", "other", "--password", "0123456789abcdef")):
            subprocess.run(["/usr/sbin/tgtadm", "-C", "0", "--lld", "iscsi", "--mode", words[0], "--op", *words[1:]],
                           check=True, cwd="/", preexec_fn=demote,
                           env={"TGT_IPC_SOCKET": variables["TGT_IPC_SOCKET"]})
        for options in ((), ("--fix",)):
            seen = findings_of(self.b, *options)
            self.assertEqual(sorted(seen), [("account", "other"), ("export", "iqn.2020-01.org.example:other")])
            for finding in seen.values():
                self.assertFalse(finding["fixable"] or finding["fixed"], finding)
        wait_by_polling(self.a.session, task, 60)
        self.assert_moved()
        self.assertEqual(findings_of(self.b), {})

    def test_what_lives_is_accounted_for(self):
        """Both sides, from the beginning of a move to its end."""
        self.a.configure(migration_bandwidth="12MiB")
        self.a.restart()
        task = self.move().begin()
        looks = 0
        while self.a.session.task.get_status(task) == "pending":
            for pool in (self.a, self.b):
                self.assertEqual(pool.session.doctor.fix(pool.host), [])
            looks += 1
        wait_by_polling(self.a.session, task, 10)
        self.assertGreater(looks, 3)
        self.assert_moved()


if __name__ == "__main__":
    unittest.main(verbosity=2)
