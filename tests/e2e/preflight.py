#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Whatever a move is refused for, VM.assert_can_migrate says it before: the same code and parameters as VM.migrate_send,
which then has not begun, and nothing is left. A cause is a generator that makes it so, gives what is to be said, and
undoes it; a pattern stands for a text, and in what has figures of the moment, figures are not compared."""

import contextlib
import inspect
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB, NULL, Failure, Move, Pool, free_port, give, small_folder, wait_for  # noqa: E402

NOBODY = "OpaqueRef:00000000-1111-2222-3333-444444444444"
DISK = 4 * MIB
MOMENTARY = ("SR_BACKEND_FAILURE_44", "HOST_NOT_ENOUGH_FREE_MEMORY", "CANNOT_CONTACT_HOST")


def text(*words):
    return re.compile(".*".join(words), re.DOTALL)


class Causes(unittest.TestCase):
    maxDiff = None

    def said(self, call):
        with self.assertRaises(Failure) as raised:
            call()
        details = raised.exception.details
        if details[0] in MOMENTARY:
            return [details[0], *(re.sub(r"\d+", "N", part) for part in details[1:])]
        return details

    def assert_said(self, move, expected):
        before = self.a.session.migration.get_all()
        check = self.said(move.check)
        self.assertEqual(check[0], expected[0], check)
        self.assertEqual(len(check), len(expected), check)
        for part, wanted in zip(check, expected):
            if isinstance(wanted, str):
                self.assertEqual(part, wanted, check)
            else:
                self.assertRegex(part, wanted)
        self.assertEqual(self.said(move.send), check)
        self.assertEqual(self.a.session.migration.get_all(), before)

    def run_causes(self, *kinds):
        names = [name for kind in kinds for name, _ in inspect.getmembers(kind, inspect.isfunction)
                 if not name.startswith("test") and inspect.isgeneratorfunction(getattr(kind, name))]
        self.assertGreater(len(names), 3)
        for name in names:
            with self.subTest(cause=name):
                move = self.move()
                cause = getattr(self, name)(move)
                try:
                    self.assert_said(move, next(cause))
                finally:
                    next(cause, None)
                # It was nothing else.
                self.assertEqual(self.move().check(), "")

    @contextlib.contextmanager
    def stored(self, pool, table, ref, field, value):
        """What no client can make at will."""
        with contextlib.closing(sqlite3.connect(pool.path("state", "pool.db"), timeout=10)) as db:
            def put(content):
                with db:
                    db.execute(f"UPDATE {table} SET {field} = ? WHERE ref = ?", (content, ref))
            before, = db.execute(f"SELECT {field} FROM {table} WHERE ref = ?", (ref,)).fetchone()
            put(value)
            yield
            put(before)


class OfTheOperation:
    """Contract 2.6.1, and the queue."""

    def it_is_blocked(self, move):
        self.a.session.VM.add_to_blocked_operations(self.vm, "migrate_send", "the reason")
        yield ["OPERATION_BLOCKED", self.vm, "the reason"]
        self.a.session.VM.remove_from_blocked_operations(self.vm, "migrate_send")

    def it_has_an_operation(self, move):
        with self.stored(self.a, "VM", self.vm, "current_operations", f'{{"{NOBODY}": "clone"}}'):
            yield ["OTHER_OPERATION_IN_PROGRESS", "VM", self.vm, "clone", NOBODY]

    def it_waits_in_the_queue(self, move):
        with self.occupied(self.sr_b):
            task = self.move().begin()
            wait_for("it waits", lambda: [record for record in self.a.session.migration.get_all_records().values()
                                          if record["state"] == "QUEUED"], 20)
            yield ["OTHER_OPERATION_IN_PROGRESS", "VM", self.vm, "migrate_send", task]
            self.cancel(task)

    def it_is_a_template(self, move):
        with self.stored(self.a, "VM", self.vm, "is_default_template", 1):
            yield ["VM_IS_TEMPLATE", self.vm, "migrate_send"]

    def it_is_a_snapshot(self, move):
        move.vm = self.a.session.VM.snapshot(self.other, "of another")
        yield ["VM_IS_SNAPSHOT", move.vm, "migrate_send"]
        disks = self.a.disks_of(move.vm)
        self.a.session.VM.destroy(move.vm)
        for vdi in disks:
            self.a.session.VDI.destroy(vdi)

    def it_is_a_control_domain(self, move):
        move.vm, = [ref for ref, vm in self.a.session.VM.get_all_records().items() if vm["is_control_domain"]]
        yield ["OPERATION_NOT_ALLOWED", text("control domain")]

    def it_is_none(self, move):
        move.vm = NOBODY
        yield ["HANDLE_INVALID", "VM", NOBODY]


class OfTheArguments:

    def the_token_lacks_a_key(self, move):
        del move.token["session_id"]
        yield ["INTERNAL_ERROR", text("session_id")]

    def the_protocol_is_another(self, move):
        move.token["ferry_protocol"] += "0"
        yield ["INTERNAL_ERROR", text("protocol", "same version")]

    def the_data_would_be_in_the_clear(self, move):
        move.token["ferry_data_tls"] = "off"
        yield ["INTERNAL_ERROR", text("data_tls")]

    def nobody_is_there(self, move):
        move.token["master"] = f"https://127.0.0.1:{free_port()}"
        yield ["CANNOT_CONTACT_HOST", "N.N.N.N:N", text("connect")]

    def somebody_else_is_there(self, move):
        digits = move.token["ferry_fingerprint"]
        move.token["ferry_fingerprint"] = digits[:-1] + ("0" if digits[-1] != "0" else "1")
        yield ["TLS_CONNECTION_FAILED", "127.0.0.1", str(self.b.port), text("key")]

    def the_session_is_over(self, move):
        move.token["session_id"] = NOBODY
        yield ["SESSION_INVALID", NOBODY]

    def an_option_is_wrong(self, move):
        move.options = {"on_read_error": "ignore"}
        yield ["INVALID_VALUE", "options:on_read_error", text("ignore", "fail or zero")]

    def a_disk_is_not_mapped(self, move):
        vdi, = move.vdi_map
        move.vdi_map = {}
        yield ["VDI_NOT_IN_MAP", vdi]

    def a_card_is_not_mapped(self, move):
        vif, = move.vif_map
        move.vif_map = {}
        yield ["VIF_NOT_IN_MAP", vif]

    def a_disk_of_the_map_is_none(self, move):
        move.vdi_map[NOBODY] = self.sr_b
        yield ["HANDLE_INVALID", "VDI", NOBODY]

    def a_repository_is_not_there(self, move):
        move.vdi_map = {vdi: NOBODY for vdi in move.vdi_map}
        yield ["HANDLE_INVALID", "SR", NOBODY]

    def a_network_is_not_there(self, move):
        move.vif_map = {vif: NOBODY for vif in move.vif_map}
        yield ["HANDLE_INVALID", "network", NOBODY]


class OfTheDisk:

    def it_has_block_tracking(self, move):
        with self.stored(self.a, "VDI", self.vdi, "cbt_enabled", 1):
            yield ["VDI_CBT_ENABLED", self.vdi]

    def it_is_encrypted(self, move):
        self.a.session.VDI.add_to_sm_config(self.vdi, "key_hash", "x")
        yield ["VDI_IS_ENCRYPTED", self.vdi]
        self.a.session.VDI.remove_from_sm_config(self.vdi, "key_hash")

    def it_is_reset_on_boot(self, move):
        with self.stored(self.a, "VDI", self.vdi, "on_boot", "reset"):
            yield ["VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION", self.vdi]

    def it_is_worked_on(self, move):
        with self.stored(self.a, "VDI", self.vdi, "current_operations", f'{{"{NOBODY}": "update"}}'):
            yield ["OTHER_OPERATION_IN_PROGRESS", "VDI", self.vdi, "update", NOBODY]

    def another_vm_has_it(self, move):
        second = self.a.vm_create("second", [self.vdi])
        yield ["VDI_IN_USE", self.vdi, "migrate_send"]
        self.a.session.VM.destroy(second)

    def its_file_is_gone(self, move):
        path = self.a.vdi_path(self.vdi)
        os.rename(path, path + ".away")
        yield ["VDI_MISSING", self.sr_a, self.vdi]
        os.rename(path + ".away", path)

    def its_file_has_another_size(self, move):
        path = self.a.vdi_path(self.vdi)
        os.truncate(path, DISK + 512)
        yield ["INTERNAL_ERROR", text("preflight", str(DISK + 512))]
        os.truncate(path, DISK)


class OfTheDestination:

    def it_takes_no_vms(self, move):
        self.b.session.host.disable(self.b.host)
        yield ["HOST_DISABLED", self.b.host]
        self.b.session.host.enable(self.b.host)

    def it_has_the_vm(self, move):
        uuid = self.a.session.VM.get_uuid(self.vm)
        there = self.b.vm_create("of the same uuid")
        with self.stored(self.b, "VM", there, "uuid", uuid):
            yield ["VM_TO_IMPORT_IS_NOT_NEWER_VERSION", there, "0", "0"]
        self.b.session.VM.destroy(there)

    def its_repository_is_unplugged(self, move):
        pbd, = self.b.session.SR.get_PBDs(self.sr_b)
        self.b.session.PBD.unplug(pbd)
        yield ["SR_NOT_ATTACHED", self.b.session.SR.get_uuid(self.sr_b)]
        self.b.session.PBD.plug(pbd)

    def its_repository_is_too_small(self, move):
        move.vdi_map = {vdi: self.small for vdi in move.vdi_map}
        with open(os.path.join(self.b.path("small"), ".filler"), "wb") as file:
            file.write(bytes(8 * MIB))
        yield ["SR_BACKEND_FAILURE_44", "", text("preflight", "bytes free"), ""]
        os.unlink(file.name)

    def its_space_is_promised(self, move):
        """To a move that is on its way there."""
        move.vdi_map = {vdi: self.small for vdi in move.vdi_map}
        with self.occupied(self.small):
            yield ["SR_BACKEND_FAILURE_44", "", text("promised to other incoming disks"), ""]

    def its_folder_cannot_be_written_to(self, move):
        folder = self.b.path("small")
        move.vdi_map = {vdi: self.small for vdi in move.vdi_map}
        os.chmod(folder, 0o555)
        yield ["SR_BACKEND_FAILURE_78", "", text(re.escape(folder)), ""]
        os.chmod(folder, 0o755)

    def it_has_a_file_of_that_name(self, move):
        path = os.path.join(self.b.path("small"), self.a.session.VDI.get_uuid(self.vdi) + ".raw")
        move.vdi_map = {vdi: self.small for vdi in move.vdi_map}
        with open(path, "wb"):
            yield ["SR_BACKEND_FAILURE_43", "", text(re.escape(path), "is not of this migration"), ""]
        self.assertEqual(os.path.getsize(path), 0)
        os.unlink(path)

    def it_has_no_target(self, move):
        os.rename(self.tgtd, self.tgtd + ".away")
        yield ["INTERNAL_ERROR", text("cannot take disks", re.escape(self.tgtd))]
        os.rename(self.tgtd + ".away", self.tgtd)

    def it_cannot_import_the_vm(self, move):
        vbd, = self.a.session.VM.get_VBDs(self.vm)
        with self.stored(self.a, "VBD", vbd, "userdevice", "xvda"):
            yield ["IMPORT_ERROR", text("preflight", "userdevice")]


def link(case, pool_path, program):
    """A name for a program that the test can take away."""
    folder = tempfile.mkdtemp(prefix="f.programs.", dir="/tmp")
    case.addClassCleanup(shutil.rmtree, folder)
    os.chmod(folder, 0o755)
    path = os.path.join(folder, pool_path)
    os.symlink(program, path)
    return path


class Halted(Causes, OfTheOperation, OfTheArguments, OfTheDisk, OfTheDestination):

    @classmethod
    def setUpClass(cls):
        cls.tgtd = link(cls, "tgtd", "/usr/sbin/tgtd")
        cls.a = cls.enterClassContext(Pool("A", migration_max_sending=1, migration_bandwidth="1MiB"))
        cls.b = cls.enterClassContext(Pool("B", tgt_program=cls.tgtd))
        cls.sr_a, cls.sr_b = cls.a.sr_create(), cls.b.sr_create()
        cls.guests_a, cls.guests_b = cls.a.network_create(), cls.b.network_create()
        cls.vdi = cls.a.vdi_create(cls.sr_a, DISK)
        cls.a.vdi_write(cls.vdi, os.urandom(DISK))
        cls.vm = cls.a.vm_create("guest", [cls.vdi], [cls.guests_a])
        vdi = cls.a.vdi_create(cls.sr_a, 2 * DISK)
        cls.a.vdi_write(vdi, os.urandom(2 * DISK))
        cls.other = cls.a.vm_create("other", [vdi])

    def move(self):
        return Move(self.a, self.b, self.vm, self.sr_b, self.guests_b)

    def cancel(self, task):
        self.a.session.task.cancel(task)
        wait_for("it is cancelled", lambda: self.a.session.task.get_status(task) == "cancelled", 20)

    @contextlib.contextmanager
    def occupied(self, sr):
        """The only place is taken by another VM's move to that SR, which takes eight seconds."""
        task = Move(self.a, self.b, self.other, sr).begin()
        wait_for("it copies", lambda: [record for record in self.a.session.migration.get_all_records().values()
                                       if record["state"] == "COPYING"], 20)
        yield
        self.cancel(task)
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()

    def test_whatever_it_is_refused_for_is_said_before(self):
        folder = small_folder(self, self.b.path("small"), "10m")
        type(self).small = self.b.sr_create("small", folder)
        self.run_causes(OfTheOperation, OfTheArguments, OfTheDisk, OfTheDestination)
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()
        self.assertEqual(self.b.session.VDI.get_all(), [])
        # Without a cause it goes.
        self.assertTrue(self.move().send())


class OfTheGuest:

    def it_is_paused(self, move):
        self.a.session.VM.pause(self.vm)
        yield ["VM_BAD_POWER_STATE", self.vm, "halted, running", "paused"]
        self.a.session.VM.unpause(self.vm)

    def it_runs_and_is_to_be_copied(self, move):
        move.options = {"copy": "true"}
        yield ["INVALID_VALUE", "options:copy", text("halted")]

    def it_has_no_room_there(self, move):
        free = int(self.b.session.host_metrics.get_memory_free(self.b.session.host.get_metrics(self.b.host)))
        with self.stored(self.a, "VM", self.vm, "memory_static_max", 2 * free):
            yield ["HOST_NOT_ENOUGH_FREE_MEMORY", "N", "N"]

    def there_is_no_qemu(self, move):
        os.rename(self.qemu, self.qemu + ".away")
        yield ["INTERNAL_ERROR", text("cannot run guests", re.escape(self.qemu))]
        os.rename(self.qemu + ".away", self.qemu)


class Running(Causes, OfTheGuest):

    @classmethod
    def setUpClass(cls):
        cls.qemu = link(cls, "qemu", "/usr/bin/qemu-system-x86_64")
        cls.a = cls.enterClassContext(Pool("A"))
        cls.b = cls.enterClassContext(Pool("B", guest_qemu=cls.qemu))
        cls.sr_a, cls.sr_b = cls.a.sr_create(), cls.b.sr_create()
        cls.guests_b = cls.b.network_create()
        cls.vm = cls.a.vm_create("guest", [cls.a.vdi_create(cls.sr_a, DISK)], [cls.a.network_create()])
        cls.a.session.VM.set_memory_limits(cls.vm, *[str(64 * MIB)] * 4)
        cls.a.session.VM.start(cls.vm, False, False)
        cls.addClassCleanup(lambda: cls.a.session.VM.hard_shutdown(cls.vm))

    def move(self):
        return Move(self.a, self.b, self.vm, self.sr_b, self.guests_b)

    def test_whatever_it_is_refused_for_is_said_before(self):
        self.run_causes(OfTheGuest)
        self.a.wait_for_no_leftovers(running=(self.a.session.VM.get_uuid(self.vm),))
        self.b.wait_for_no_leftovers()


class OfThePool:

    def it_is_there_already(self, move):
        move.token = self.a.session.host.migrate_receive(self.a.host, self.a.network(), {})
        yield ["OPERATION_NOT_ALLOWED", text("at that host already")]

    def the_host_takes_no_vms(self, move):
        self.a.session.host.disable(self.b.host)
        yield ["HOST_DISABLED", self.b.host]
        self.a.session.host.enable(self.b.host)

    def it_is_to_be_copied(self, move):
        move.options = {"copy": "true"}
        yield ["OPERATION_NOT_ALLOWED", text("another pool")]

    def it_is_to_have_another_network(self, move):
        vif, = self.a.vifs_of(self.vm)
        move.vif_map = {vif: self.a.network()}
        yield ["OPERATION_NOT_ALLOWED", text("vif_map")]

    def the_host_does_not_reach_a_disk(self, move):
        del move.vdi_map[self.local]
        yield ["VDI_NOT_IN_MAP", self.local]

    def a_disk_that_stays_is_worked_on(self, move):
        with self.stored(self.a, "VDI", self.shared, "current_operations", f'{{"{NOBODY}": "copy"}}'):
            yield ["OTHER_OPERATION_IN_PROGRESS", "VDI", self.shared, "copy", NOBODY]

    def a_repository_is_of_another_host(self, move):
        move.vdi_map[self.local] = self.sr_a2
        yield ["SR_NOT_ATTACHED", self.a.session.SR.get_uuid(self.sr_a2)]


class WithinAPool(Causes, OfThePool):

    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp(prefix="f.shared.", dir="/tmp")
        cls.addClassCleanup(shutil.rmtree, folder)
        give(folder)
        cls.a = cls.enterClassContext(Pool("A"))
        cls.b = cls.enterClassContext(Pool("B")).join(cls.a)
        cls.sr_a, cls.sr_a2, cls.sr_b = cls.a.sr_create(), cls.a.sr_create("second"), cls.b.sr_create()
        shared = cls.a.sr_create("shared", folder, shared=True)
        cls.b.sr_attach(shared, folder)
        cls.shared, cls.local = cls.a.vdi_create(shared, DISK), cls.a.vdi_create(cls.sr_a, DISK)
        cls.vm = cls.a.vm_create("guest", [cls.shared, cls.local], [cls.a.network_create()])

    def move(self):
        move = Move(self.a, self.b, self.vm, self.sr_b)
        move.token = self.a.session.host.migrate_receive(self.b.host, self.a.network(), {})
        move.vdi_map = {self.local: self.sr_b}
        return move

    def test_whatever_it_is_refused_for_is_said_before(self):
        self.run_causes(OfThePool)
        self.a.wait_for_no_leftovers()
        self.assertEqual(self.a.session.VM.get_current_operations(self.vm), {})


if __name__ == "__main__":
    unittest.main(verbosity=2)
