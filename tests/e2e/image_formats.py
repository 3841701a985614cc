#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Disks whose images are qcow2: made, taken in, run from, moved; and those that are not what they say."""

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import linuxguest  # noqa: E402
from ferrytest import (  # noqa: E402
    MIB, Failure, Move, Pool, allocated, data_extents, digest, give, wait_for)
from slowmove import DISK, SlowMove  # noqa: E402
from vmstate import different, vm_state  # noqa: E402
from xensession import wait_by_polling  # noqa: E402

KEY = "image-format"
QCOW2 = {KEY: "qcow2"}


def qemu_img(*args):
    return subprocess.run(["qemu-img", *map(str, args)], check=True, capture_output=True,
                          text=True).stdout


def location(pool, sr):
    return pool.session.PBD.get_device_config(pool.session.SR.get_PBDs(sr)[0])["location"]


def vdi_create(pool, sr, size, sm_config):
    return pool.session.VDI.create({
        "name_label": "disk", "name_description": "", "SR": sr, "virtual_size": str(size),
        "type": "user", "sharable": False, "read_only": False, "other_config": {},
        "xenstore_data": {}, "sm_config": sm_config, "tags": []})


def content(size, seed):
    """Some data, some zeros that are written, and nothing between."""
    rng = random.Random(seed)
    data = bytearray(size)
    for at in range(0, size - 2 * MIB, 4 * MIB):
        data[at + 4096:at + MIB + 512] = rng.randbytes(MIB + 512 - 4096)
    return bytes(data)


def add_image(pool, sr, name, data=None, options=(), source=None):
    """A qcow2 image put into the SR's folder, as an operator does."""
    path = os.path.join(location(pool, sr), name)
    raw = pool.path("content.raw")
    if data is not None:
        with open(raw, "wb") as file:
            file.write(data)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *options, source or raw, path)
    give(path)
    return path


def vdi_at(pool, name):
    found = [ref for ref, vdi in pool.session.VDI.get_all_records().items()
             if vdi["location"] == name]
    return found[0] if found else None


class Images(unittest.TestCase):
    """What an SR makes of them."""

    def setUp(self):
        self.a = self.enterContext(Pool("A"))
        self.sr = self.a.sr_create()
        self.folder = location(self.a, self.sr)

    def skipped(self, name):
        return self.a.session.SR.get_sm_config(self.sr).get(f"skipped:{name}", "")

    def refused(self, code, function, *args):
        with self.assertRaises(Failure) as raised:
            function(*args)
        self.assertEqual(raised.exception.code, code, raised.exception.details)
        return raised.exception.details

    def test_made_grown_and_destroyed(self):
        session = self.a.session
        vdi = vdi_create(self.a, self.sr, 5 * MIB + 1, QCOW2)
        record = session.VDI.get_record(vdi)
        self.assertEqual(record["virtual_size"], str(5 * MIB + 512))
        self.assertEqual(record["sm_config"], QCOW2)
        path = self.a.vdi_path(vdi)
        info = json.loads(qemu_img("info", "--output=json", path))
        self.assertEqual((info["format"], info["virtual-size"]), ("qcow2", 5 * MIB + 512))
        session.VDI.resize(vdi, str(9 * MIB))
        info = json.loads(qemu_img("info", "--output=json", path))
        self.assertEqual(info["virtual-size"], 9 * MIB)
        self.assertEqual(session.VDI.get_virtual_size(vdi), str(9 * MIB))
        self.refused("SR_BACKEND_FAILURE_79", session.VDI.resize, vdi, str(MIB))
        self.assertEqual(self.refused("INVALID_VALUE", vdi_create, self.a, self.sr, MIB,
                                      {KEY: "vhd"}), ["INVALID_VALUE", f"sm_config:{KEY}", "vhd"])
        session.SR.scan(self.sr)
        self.assertEqual(session.VDI.get_record(vdi)["physical_utilisation"],
                         str(allocated(path)))
        session.VDI.destroy(vdi)
        self.assertFalse(os.path.exists(path))
        self.assertEqual(self.a.leftovers(), [])

    def test_taken_in_and_known_by_its_name(self):
        session = self.a.session
        add_image(self.a, self.sr, "debian.qcow2", content(12 * MIB, 1))
        # What a guest could have written to a raw disk: it stays raw.
        shutil.copyfile(os.path.join(self.folder, "debian.qcow2"),
                        os.path.join(self.folder, "guest.raw"))
        with open(os.path.join(self.folder, "guest.raw"), "r+b") as file:
            file.truncate(16 * MIB)
        session.SR.scan(self.sr)
        record = session.VDI.get_record(vdi_at(self.a, "debian.qcow2"))
        self.assertEqual((record["virtual_size"], record["sm_config"]), (str(12 * MIB), QCOW2))
        raw = session.VDI.get_record(vdi_at(self.a, "guest.raw"))
        self.assertEqual((raw["virtual_size"], raw["sm_config"]), (str(16 * MIB), {}))
        # Saying so does not make it so, and is put right.
        session.VDI.add_to_sm_config(vdi_at(self.a, "guest.raw"), KEY, "qcow2")
        session.SR.scan(self.sr)
        raw = session.VDI.get_record(vdi_at(self.a, "guest.raw"))
        self.assertEqual((raw["virtual_size"], raw["sm_config"]), (str(16 * MIB), {KEY: "raw"}))

    def hostile(self):
        """name -> (how the file is made, what the reason has)"""
        sound = self.a.path("sound.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", sound, "64M")
        with open(sound, "rb") as file:
            header = file.read()

        def damaged(at, form, value):
            return header[:at] + struct.pack(form, value) + header[at + struct.calcsize(form):]

        backed, aside = self.a.path("backed.qcow2"), self.a.path("aside.qcow2")
        qemu_img("create", "-q", "-f", "qcow2", "-u", "-b", "/etc/passwd", "-F", "raw", backed,
                 "1M")
        qemu_img("create", "-q", "-f", "qcow2", "-o",
                 f"data_file={self.a.path('data')},data_file_raw=on", aside, "1M")
        images = {}
        for name, path in (("backed", backed), ("aside", aside)):
            with open(path, "rb") as file:
                images[name] = file.read()
        return {
            "backing.qcow2": (images["backed"], "backing file"),
            "data-file.qcow2": (images["aside"], "external data file"),
            "encrypted.qcow2": (damaged(32, ">I", 1), "encrypted"),
            "cut.qcow2": (header[:80], "cut short"),
            "empty.qcow2": (b"", "cut short"),
            "no-tables.qcow2": (header[:512], "cut short"),
            "huge.qcow2": (damaged(24, ">Q", 1 << 62), "covers fewer"),
            "beyond.qcow2": (damaged(24, ">Q", (1 << 64) - 512), "whole sectors"),
            "odd.qcow2": (damaged(24, ">Q", 1000), "whole sectors"),
            "clusters.qcow2": (damaged(20, ">I", 63), "2^63"),
            "table.qcow2": (damaged(36, ">I", 0xffffffff), "L1 table"),
            "text.qcow2": (b"#!/bin/sh\n" * 100, "no qcow2 image"),
        }

    def test_what_does_not_stand_alone_is_left_out(self):
        images = self.hostile()
        for name, (data, _) in images.items():
            path = os.path.join(self.folder, name)
            with open(path, "wb") as file:
                file.write(data)
            give(path)
        os.symlink("/etc/passwd", os.path.join(self.folder, "link.qcow2"))
        self.a.session.SR.scan(self.sr)
        self.assertEqual(self.a.session.VDI.get_all(), [])
        for name, (_, reason) in images.items():
            self.assertIn(reason, self.skipped(name), name)
        self.assertIn("symbolic link", self.skipped("link.qcow2"))

    def test_one_that_was_exchanged_is_not_used(self):
        """Sound when it was taken in, hostile when it is to be used."""
        b = self.enterContext(Pool("B"))
        sr_b = b.sr_create()
        session = self.a.session
        vdi = vdi_create(self.a, self.sr, MIB, QCOW2)
        vm = self.a.vm_create("exchanged", [vdi])
        move = Move(self.a, b, vm, sr_b)
        for name, (data, reason) in self.hostile().items():
            with open(self.a.vdi_path(vdi), "wb") as file:
                file.write(data)
            for function, args in ((session.VM.start, (vm, False, False)), (move.check, ()),
                                   (move.send, ()), (session.VDI.resize, (vdi, str(8 * MIB)))):
                with self.subTest(image=name, call=function):
                    with self.assertRaises(Failure) as raised:
                        function(*args)
                    self.assertIn(reason, str(raised.exception.details))
        self.assertEqual(session.VM.get_power_state(vm), "Halted")
        b.wait_for_no_leftovers()
        session.VM.destroy(vm)
        session.VDI.destroy(vdi)
        self.assertEqual(self.a.leftovers(), [])


class Guests(unittest.TestCase):
    def test_a_guest_runs_from_it_and_moves_when_halted(self):
        linuxguest.kernel()
        a, b = self.enterContext(Pool("A")), self.enterContext(Pool("B"))
        sr_a, sr_b = a.sr_create(), b.sr_create()
        vdi = vdi_create(a, sr_a, 8 * MIB, QCOW2)
        vm = a.vm_create("guest", [vdi], **linuxguest.boot_fields(a.root))
        uuid = a.session.VM.get_uuid(vm)
        a.session.VM.set_memory_limits(vm, *[str(96 * MIB)] * 4)
        a.session.VM.start(vm, False, False)
        console = a.path("run", "guests", uuid, "console.log")

        def beats():
            with open(console, encoding="utf-8", errors="replace") as file:
                text = file.read()
            self.assertNotIn("write failed", text)
            return "heartbeat 5" in text
        wait_for("heartbeat 5", beats, 60)
        # No image is made smaller than, nor taken from, a guest that runs from it.
        with self.assertRaises(Failure) as raised:
            a.session.VDI.resize(vdi, str(16 * MIB))
        self.assertEqual(raised.exception.code, "VDI_IN_USE")
        a.session.VM.clean_shutdown(vm)
        qemu_img("check", "-q", a.vdi_path(vdi))
        raw = a.path("before.raw")
        qemu_img("convert", "-f", "qcow2", "-O", "raw", a.vdi_path(vdi), raw)
        with open(raw, "rb") as file:
            self.assertIn(b"record 5\n", file.read())
        arrived = Move(a, b, vm, sr_b).send()
        moved = b.disks_of(arrived)[0]
        self.assertEqual(digest(b.vdi_path(moved)), digest(raw))
        a.wait_for_no_leftovers()
        b.wait_for_no_leftovers()


class Moves(unittest.TestCase):
    maxDiff = None

    def test_a_raw_and_a_qcow2_disk_move(self):
        a, b = self.enterContext(Pool("A")), self.enterContext(Pool("B"))
        sr_a, sr_b = a.sr_create(), b.sr_create()
        raw = a.vdi_create(sr_a, 12 * MIB)
        a.vdi_write(raw, content(12 * MIB, 2))
        kept = [a.path("kept.raw"), a.path("plain.qcow2"), a.path("packed.qcow2")]
        shutil.copyfile(a.vdi_path(raw), kept[0])
        # Odd sizes, small clusters, compressed clusters: none of it is the destination's concern.
        sizes = [12 * MIB, 40 * MIB + 512, 24 * MIB]
        plain = add_image(a, sr_a, "plain.qcow2", content(sizes[1], 3), ("-o", "cluster_size=512"))
        packed = add_image(a, sr_a, "packed.qcow2", content(sizes[2], 4), ("-c",))
        shutil.copyfile(plain, kept[1])
        shutil.copyfile(packed, kept[2])
        a.session.SR.scan(sr_a)
        disks = [raw, vdi_at(a, "plain.qcow2"), vdi_at(a, "packed.qcow2")]
        vm = a.vm_create("mixed", disks)
        before = vm_state(a, vm)
        arrived = Move(a, b, vm, sr_b).send()
        after = vm_state(b, arrived)
        for state in (before, after):
            del state["digests"]
            for vdi in state["VDIs"]:
                vdi["sm_config"].pop(KEY, None)
        before["digests"] = after["digests"] = []
        self.assertEqual(different(before, after), [])
        for i, (vdi, size) in enumerate(zip(b.disks_of(arrived), sizes)):
            record = b.session.VDI.get_record(vdi)
            self.assertEqual((record["virtual_size"], record["sm_config"]), (str(size), {}))
            self.assertTrue(record["location"].endswith(".raw"))
            path = b.vdi_path(vdi)
            self.assertEqual(os.path.getsize(path), size)
            qemu_img("compare", "-F", "raw", "-f", "qcow2" if i else "raw", kept[i], path)
            # What is a hole in the image is one there.
            self.assertLess(sum(length for _, length in data_extents(path)), size // 2)
        a.wait_for_no_leftovers()
        b.wait_for_no_leftovers()
        self.assertEqual(os.listdir(location(a, sr_a)), [])


class Interrupted(SlowMove):
    def setUp(self):
        super().setUp()
        self.data = random.Random(5).randbytes(DISK)
        add_image(self.a, self.sr_a, "disk.qcow2", self.data)
        self.a.session.SR.scan(self.sr_a)
        old = self.vm
        self.vm = self.a.vm_create("qcow2", [vdi_at(self.a, "disk.qcow2")], [self.guests_a])
        self.uuid = self.a.session.VM.get_uuid(self.vm)
        disks = self.a.disks_of(old)
        self.a.session.VM.destroy(old)
        for vdi in disks:
            self.a.session.VDI.destroy(vdi)
        self.before = vm_state(self.a, self.vm)

    def server(self):
        """Pid of the process that reads the image."""
        servers = self.a.image_servers()
        self.assertEqual(len(servers), 1)
        return servers[0]

    def assert_arrived(self):
        arrived = self.b.vm_by_uuid(self.uuid)
        with open(self.b.vdi_path(self.b.disks_of(arrived)[0]), "rb") as file:
            self.assertEqual(file.read(), self.data)
        self.a.wait_for_no_leftovers()
        self.b.wait_for_no_leftovers()

    def test_the_sender_dies_and_goes_on(self):
        task = self.begin_and_wait_for_the_middle()
        self.server()
        self.a.kill()
        self.assertEqual(self.a.image_servers(), [])
        self.a.start()
        wait_by_polling(self.a.session, task, 60)
        self.assert_arrived()

    def test_cancelled(self):
        task = self.begin_and_wait_for_the_middle()
        self.a.session.task.cancel(task)
        self.assert_task_fails(task, "TASK_CANCELLED")
        self.assert_untouched()
        self.assertEqual(self.a.image_servers(), [])

    def test_cancelled_while_its_server_hangs(self):
        task = self.begin_and_wait_for_the_middle()
        os.kill(self.server(), signal.SIGSTOP)
        self.a.session.task.cancel(task)
        self.assert_task_fails(task, "TASK_CANCELLED", timeout=10)
        self.assert_untouched()

    def test_its_server_dies(self):
        task = self.begin_and_wait_for_the_middle()
        os.kill(self.server(), signal.SIGKILL)
        failure = self.assert_task_fails(task, "INTERNAL_ERROR")
        self.assertIn("source", str(failure.details))
        self.assertIn("NBD", str(failure.details))
        self.assert_untouched()
        self.move().send()
        self.assert_arrived()

    def test_changed_by_somebody_else(self):
        task = self.begin_and_wait_for_the_middle()
        with open(self.a.vdi_path(self.a.disks_of(self.vm)[0]), "r+b") as file:
            file.seek(DISK - 4096)
            file.write(b"somebody else's")
        failure = self.assert_task_fails(task, "INTERNAL_ERROR")
        self.assertIn("changed or replaced by somebody else", str(failure.details))
        self.assert_destination_empty()


if __name__ == "__main__":
    unittest.main()
