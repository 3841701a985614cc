#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line against a server that behaves as a test wants: names, records, trust, errors."""

import subprocess
import unittest

from clitest import FERRY, TIMEOUT, CliTest
from fakexapi import NULL, FakePool


class Objects(CliTest):
    def setUp(self):
        super().setUp()
        self.pool = self.fake("a")

    def test_objects_are_named_by_uuid_ref_or_name(self):
        vm = self.pool.add_vm("web", ("system", 1 << 30))
        for name in ("web", vm, self.pool.uuid("VM", vm)):
            self.assertEqual(self.json("vm", "show", name)["ref"], vm)

    def test_an_ambiguous_name_lists_the_candidates(self):
        vms = [self.pool.add_vm("web"), self.pool.add_vm("web")]
        error = self.refused("vm", "destroy", "web")
        for vm in vms:
            self.assertIn(self.pool.uuid("VM", vm), error)
        self.assertNotIn("VM.destroy", self.pool.calls)

    def test_what_is_not_there_is_said_with_class_and_name(self):
        self.assertIn('no VM called "web"', self.refused("vm", "show", "web"))
        unknown = "11111111-2222-4333-8444-555555555555"
        self.assertIn(f"no VDI with uuid {unknown} [UUID_INVALID]",
                      self.refused("vdi", "show", unknown))
        self.assertIn("OpaqueRef:x", self.refused("sr", "show", "OpaqueRef:x"))
        self.assertIn("must be a uuid or a ref", self.refused("vbd", "destroy", "0", code=2))
        self.assertIn("is empty", self.refused("vm", "show", "", code=2))

    def test_json_has_the_records_with_numbers_as_numbers(self):
        self.pool.add_vm('quote " and\nnewline', ("disk", 20 << 30))
        vm, = self.json("vm", "list")
        self.assertEqual(vm["name_label"], 'quote " and\nnewline')
        self.assertEqual(vm["memory_static_max"], 256 << 20)
        self.assertIs(vm["is_a_template"], False)
        vdi, = self.json("vdi", "list")
        self.assertEqual(vdi["virtual_size"], 20 << 30)
        self.assertEqual(self.json("vdi", "show", "disk"), vdi)
        for noun in ("sr", "vbd", "vif", "network", "host", "pool", "task", "migration"):
            self.assertIsInstance(self.json(noun, "list"), list)

    def test_an_empty_list_is_a_result(self):
        self.assertEqual(self.json("vm", "list"), [])
        out, error = self.ferry("vm", "list")
        self.assertEqual(len(out.splitlines()), 1)
        self.assertEqual(error, "")

    def test_templates_and_snapshots_are_listed_only_when_asked_for(self):
        self.pool.add_vm("plain")
        self.pool.change("VM", self.pool.add_vm("template"), is_a_template=True)
        self.pool.change("VM", self.pool.add_vm("snapshot"), is_a_snapshot=True)
        self.assertEqual([vm["name_label"] for vm in self.json("vm", "list")], ["plain"])
        self.assertEqual(len(self.json("vm", "list", "--all")), 3)

    def test_a_table_has_a_line_an_object_and_clean_names(self):
        self.pool.add_vm("evil\x7f\n\u009b2J", ("déjà", 1536))
        out, _ = self.ferry("vm", "list")
        self.assertEqual(len(out.splitlines()), 2)
        self.assertNotIn("\x7f", out)
        self.assertNotIn("\u009b", out)
        out, _ = self.ferry("vdi", "list")
        header, line = out.splitlines()
        self.assertIn("1.5 KiB", line)
        self.assertEqual(line.index("local"), header.index("SR"), "columns are in line")

    def test_show_tells_disks_and_names_instead_of_refs(self):
        self.pool.add_vm("web", ("system", 1 << 30))
        out, _ = self.ferry("vm", "show", "web")
        self.assertIn("Disks", out)
        self.assertIn("system", out)
        self.assertNotIn("OpaqueRef", out)
        out, _ = self.ferry("vdi", "show", "system")
        self.assertIn("web", out)

    def test_a_reader_that_leaves_early_gets_no_message(self):
        for i in range(2000):
            self.pool.add_vm(f"vm number {i}" + "x" * 50)
        done = subprocess.run(["bash", "-c", f'{FERRY} --config {self.config} vm list | head -n 1'],
                              env=self.env, check=True, capture_output=True, text=True,
                              timeout=TIMEOUT)
        self.assertEqual(len(done.stdout.splitlines()), 1)
        self.assertEqual(done.stderr, "")

    def test_what_is_made_is_printed_as_uuid_alone(self):
        out, error = self.ferry("vdi", "create", "new", "--sr", "local", "--size", "20G")
        uuid = out.strip()
        made = next(r for r in self.pool.objects["VDI"].values() if r["uuid"] == uuid)
        self.assertEqual((made["virtual_size"], made["name_label"], error),
                         (str(20 << 30), "new", ""))
        self.assertEqual(made["sm_config"], {})
        out, _ = self.ferry("vdi", "create", "thin", "--sr", "local", "--size", "1G", "--format", "qcow2")
        made = next(r for r in self.pool.objects["VDI"].values() if r["uuid"] == out.strip())
        self.assertEqual(made["sm_config"], {"image-format": "qcow2"})
        self.assertEqual(set(self.json("network", "create", "net")), {"uuid", "ref"})

    def test_a_new_sr_gets_its_folder(self):
        self.ferry("sr", "create", "store", "/srv/images", "--device-config", "a=b=c")
        host, config, _size, label, *_ = self.pool.arguments["SR.create"]
        self.assertEqual((host, config, label),
                         (self.pool.host, {"location": "/srv/images", "a=b": "c"}, "store"))

    def test_disks_and_cards_take_the_first_free_place(self):
        vm = self.pool.add_vm("web", ("zero", 512), ("one", 512))
        vdi = self.pool.add("VDI", name_label="two", SR=self.pool.sr, virtual_size=512, VBDs=[])
        self.ferry("vbd", "create", "--vm", "web", "--vdi", "two", "--mode", "RO")
        made = self.pool.arguments["VBD.create"][0]
        self.assertEqual((made["userdevice"], made["mode"], made["VM"], made["VDI"]),
                         ("2", "RO", vm, vdi))
        self.ferry("vif", "create", "--vm", "web", "--network", "mgmt")
        self.ferry("vif", "create", "--vm", "web", "--network", "mgmt")
        self.assertEqual(self.pool.arguments["VIF.create"][0]["device"], "1")
        self.refused("vbd", "create", "--vm", "web", "--vdi", "two", "--device", "x", code=2)

    def test_a_vm_is_made_with_all_its_devices_or_not_at_all(self):
        self.pool.add("VDI", name_label="disk", SR=self.pool.sr, virtual_size=512, VBDs=[])
        self.ferry("vm", "create", "web", "--memory", "1G", "--disk", "disk", "--network", "mgmt")
        self.assertEqual(self.pool.arguments["VM.create"][0]["memory_static_max"], str(1 << 30))
        before = dict(self.pool.objects["VM"])
        self.refused("vm", "create", "other", "--disk", "nonsense")
        self.pool.refuse["VBD.create"] = ["VDI_IN_USE", "x", "y"]
        self.refused("vm", "create", "other", "--disk", "disk")
        self.assertEqual(self.pool.objects["VM"], before)

    def test_disks_go_with_a_vm_only_when_told(self):
        for option, left in ([], 2), (["--with-disks"], 0):
            self.pool.objects["VDI"].clear()
            self.pool.add_vm("web", ("a", 512), ("b", 512))
            self.ferry("vm", "destroy", "web", *option)
            self.assertEqual(len(self.pool.objects["VDI"]), left)

    def test_a_disk_is_not_shrunk(self):
        self.pool.add_vm("web", ("disk", 1 << 20))
        self.assertIn("cut off data", self.refused("vdi", "resize", "disk", "512K"))
        self.assertNotIn("VDI.resize", self.pool.calls)
        self.assertIn("no size", self.refused("vdi", "resize", "disk", "big", code=2))


class Errors(CliTest):
    def setUp(self):
        super().setUp()
        self.pool = self.fake("a")

    def test_refs_in_errors_are_told_by_name(self):
        vm = self.pool.add_vm("web", ("disk", 512))
        vdi = next(iter(self.pool.objects["VDI"]))
        self.pool.refuse["VDI.destroy"] = ["VDI_IN_USE", vdi, "destroy"]
        error = self.refused("vdi", "destroy", "disk")
        self.assertIn(f'"disk" ({self.pool.uuid("VDI", vdi)})', error)
        self.assertIn("[VDI_IN_USE]", error)
        self.assertIn("ferry vbd destroy", error)
        self.pool.refuse["VM.destroy"] = ["VM_BAD_POWER_STATE", vm, "halted", "running"]
        self.assertIn("is running, but must be halted", self.refused("vm", "destroy", "web"))

    def test_unknown_codes_are_shown_with_their_parameters(self):
        self.pool.refuse["SR.get_all_records"] = ["SOMETHING_NEW", "one", "two"]
        self.assertEqual(self.refused("sr", "list"), "ferry: SOMETHING_NEW: one, two\n")
        self.pool.refuse["SR.get_all_records"] = ["SR_BACKEND_FAILURE_99", "", "disk on fire", ""]
        self.assertIn("disk on fire [SR_BACKEND_FAILURE_99]", self.refused("sr", "list"))
        self.pool.refuse["SR.get_all_records"] = ["VM_BAD_POWER_STATE"]
        self.assertEqual(self.refused("sr", "list"), "ferry: VM_BAD_POWER_STATE\n")

    def test_a_wrong_password_is_said_without_showing_it(self):
        self.config += ".wrong"
        self.configure("a", self.pool, password="hunter2")
        error = self.refused("vm", "list")
        self.assertIn("refuses user root", error)
        self.assertNotIn("hunter2", error)

    def test_a_server_that_does_not_answer_is_named(self):
        self.write_config("[server a]\nurl = https://127.0.0.1:1\nuser = u\npassword = p\n")
        error = self.refused("vm", "list")
        self.assertIn("no answer from", error)
        self.assertIn("127.0.0.1:1", error)
        self.assertEqual(len(error.splitlines()), 2, error)

    def test_a_silent_server_ends_at_the_timeout(self):
        held = self.pool.changed
        with held:  # every answer that touches objects waits for this lock
            self.pool.drop = lambda method: held.acquire() and held.release()
            error = self.refused("vm", "list", "--timeout", "300ms")
        self.assertIn("no answer from", error)

    def test_a_session_that_ended_is_made_anew(self):
        vm = self.pool.add_vm("web")
        ended = []

        def end_once(method):
            if method == "VM.get_by_name_label" and not ended:
                ended.append(method)
                self.pool.end_sessions()

        self.pool.drop = end_once
        self.assertEqual(self.json("vm", "show", "web")["ref"], vm)
        self.assertEqual(self.pool.calls.count("session.login_with_password"), 2)

    def test_every_session_is_closed(self):
        self.ferry("vm", "list")
        self.refused("vm", "show", "nobody")
        self.assertEqual(self.pool.sessions, set())


class Trust(CliTest):
    def setUp(self):
        super().setUp()
        self.pool = self.stack.enter_context(FakePool("a"))
        self.key = self.pool.key_fingerprint()

    def test_an_unknown_key_is_refused_before_the_password_is_sent(self):
        self.write_config(f"[server a]\nurl = {self.pool.url}\nuser = root\npassword = x\n")
        error = self.refused("vm", "list")
        self.assertIn(self.key, error)
        self.assertIn("ferry trust a", error)
        self.assertEqual(self.pool.calls, [])

    def test_another_key_than_the_pinned_one_is_refused(self):
        self.write_config(f"[server a]\nurl = {self.pool.url}\nuser = root\npassword = x\n"
                          f"fingerprint = {'0' * 64}\n")
        error = self.refused("vm", "list")
        self.assertIn("not the one that is pinned", error)
        self.assertIn(self.key, error)
        self.assertEqual(self.pool.calls, [])

    def test_a_certificate_that_the_ca_file_vouches_for_is_accepted(self):
        self.write_config(f"[server a]\nurl = {self.pool.url}\nuser = root\n"
                          f"password = correct horse\nca_file = {self.pool.cert}\n")
        self.assertEqual(self.json("pool", "list")[0]["name_label"], "pool a")

    def test_trust_pins_and_keeps_the_rest_of_the_file(self):
        self.write_config(f"# mine\n[server a]\n  url = {self.pool.url}\nuser = root\n"
                          f"password = correct horse\nfingerprint = {'0' * 64}\n\n"
                          f"[server b]\nurl = https://b\nfingerprint = {'1' * 64}\n")
        out, error = self.ferry("trust", "a", "--yes")
        self.assertEqual(out, "")
        self.assertIn("pinned", error)
        with open(self.config, encoding="utf-8") as file:
            text = file.read()
        self.assertEqual(text, f"# mine\n[server a]\nfingerprint = {self.key}\n"
                               f"  url = {self.pool.url}\nuser = root\npassword = correct horse\n\n"
                               f"[server b]\nurl = https://b\nfingerprint = {'1' * 64}\n")
        self.assertEqual(len(self.json("pool", "list", "--server", "a")), 1)

    def test_trust_makes_the_file_for_a_new_server(self):
        self.config += ".new"
        command = [FERRY, "trust", "new", "--url", self.pool.url, "--yes"]
        subprocess.run(command, env=self.env, check=True, capture_output=True, timeout=TIMEOUT)
        with open(f"{self.folder}/.config/ferry/ferry.conf", encoding="utf-8") as file:
            self.assertEqual(file.read(), f"[server new]\nurl = {self.pool.url}\n"
                                          f"fingerprint = {self.key}\n")
        done = subprocess.run([FERRY, "vm", "list"], env=self.env, check=False,
                              capture_output=True, text=True, timeout=TIMEOUT,
                              start_new_session=True)
        self.assertIn("no user for server new", done.stderr)

    def test_a_fingerprint_of_key_or_certificate_pins_without_asking(self):
        colons = ":".join(self.key[i:i + 2] for i in range(0, 64, 2)).upper()
        for wanted in (self.key, colons, self.pool.certificate_fingerprint()):
            self.write_config(f"[server a]\nurl = {self.pool.url}\n")
            self.ferry("trust", "a", "--fingerprint", wanted)
            with open(self.config, encoding="utf-8") as file:
                self.assertIn(f"fingerprint = {self.key}\n", file.read())
        error = self.refused("trust", "a", "--fingerprint", self.key[:-1])
        self.assertIn("another key", error)

    def test_trust_asks_on_a_terminal_and_never_without_one(self):
        self.write_config(f"[server a]\nurl = {self.pool.url}\n")
        self.assertIn(self.key, self.refused("trust", "a"))
        for answer, code in (("n", 1), ("y", 0)):
            terminal = self.terminal("trust", "a")
            terminal.wait_for("[y/N] ")
            terminal.type(answer + "\n")
            self.assertEqual(terminal.end(), (code, ""))
            with open(self.config, encoding="utf-8") as file:
                self.assertEqual(self.key in file.read(), answer == "y")

    def test_a_null_default_is_no_name(self):
        self.configure("a", self.pool)
        self.pool.change("pool", self.pool.pool, default_SR=NULL)
        out, _ = self.ferry("pool", "list")
        self.assertNotIn("OpaqueRef", out)


if __name__ == "__main__":
    unittest.main()
