#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""XenAPI on the wire, byte by byte: what picky clients break on."""

import json
import os
import re
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from contractcase import NOBODY, ORIGIN, Contract
from ferrytest import MIB, NULL
from rawhttp import Connection, json_call, xml_call

ENVELOPE = ('<?xml version="1.0"?><methodResponse><params><param>',
            "</param></params></methodResponse>")
SUCCESS = ("<value><struct><member><name>Status</name><value>Success</value></member>"
           "<member><name>Value</name>", "</member></struct></value>")
FAILURE = ("<value><struct><member><name>Status</name><value>Failure</value></member>"
           "<member><name>ErrorDescription</name>", "</member></struct></value>")
CLASSES = b"<array><data><value>%s</value></data></array>"


def strings(*items):
    return "<value><array><data>" + "".join(f"<value>{i}</value>" for i in items) + \
        "</data></array></value>"


class Wire(Contract):
    def setUp(self):
        super().setUp()
        self.wire = self.enterContext(Connection(self.a.port))

    def xml(self, method, *params, path="/"):
        """The inside of <param>."""
        answer = self.wire.post(path, xml_call(method, *params))
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, "text/xml"))
        self.assertEqual(answer.headers["connection"].lower(), "keep-alive")
        text = answer.body.decode()
        self.assertTrue(text.startswith(ENVELOPE[0]) and text.endswith(ENVELOPE[1]), text)
        self.assertNotRegex(text, r">\s+<")
        return text[len(ENVELOPE[0]):-len(ENVELOPE[1])]

    def json(self, method, *params):
        answer = self.wire.post("/jsonrpc", json_call(method, *params))
        self.assertEqual((answer.status, answer.headers["content-type"]),
                         (200, "application/json"))
        return answer.body.decode()

    def assert_value(self, value, method, *params):
        self.assertEqual(self.xml(method, self.session.handle, *params), value.join(SUCCESS))

    def assert_failure(self, details, method, *params):
        self.assertEqual(self.xml(method, *params), strings(*details).join(FAILURE))

    def test_a_value_of_each_type(self):
        label = "a <b> & \"c\" 'd'"
        self.assert_value("<value></value>", "VM.set_name_description", self.vm, label)
        self.assert_value("<value>a &lt;b&gt; &amp; &quot;c&quot; 'd'</value>",
                          "VM.get_name_description", self.vm)
        self.assert_value("<value></value>", "VM.get_PV_args", self.vm)
        self.assert_value(f"<value>{256 * MIB}</value>", "VM.get_memory_static_max", self.vm)
        self.assert_value("<value><boolean>0</boolean></value>", "VM.get_is_a_template", self.vm)
        self.assert_value("<value><double>1</double></value>",
                          "VM.get_HVM_shadow_multiplier", self.vm)
        self.assert_value(f"<value><dateTime.iso8601>{ORIGIN}</dateTime.iso8601></value>",
                          "VM.get_snapshot_time", self.vm)
        self.assert_value(f"<value>{NULL}</value>", "VM.get_suspend_VDI", self.vm)
        self.assert_value(strings("one", "two"), "VM.get_tags", self.vm)
        self.assert_value(strings(), "VM.get_snapshots", self.vm)
        self.assert_value("<value><struct></struct></value>", "VM.get_current_operations", self.vm)
        self.assert_value("<value><struct><member><name>acpi</name><value>1</value></member>"
                          "</struct></value>", "VM.get_platform", self.vm)

    def test_params_as_other_clients_write_them(self):
        for value in (b"4096", b"<int>4096</int>", b"<i4>4096</i4>", b"<i8>4096</i8>",
                      b"<string>4096</string>"):
            self.assert_value("<value></value>", "VM.set_PCI_bus", self.vm, "x")
            self.assert_value("<value></value>", "VM.set_user_version", self.vm, value)
            self.assert_value("<value>4096</value>", "VM.get_user_version", self.vm)
        for value in (b"", b"<string/>", b"<string></string>"):
            self.assert_value("<value></value>", "VM.set_PCI_bus", self.vm, value)
            self.assert_value("<value></value>", "VM.get_PCI_bus", self.vm)
        with_spaces = re.sub(rb"><", b">\n  <", xml_call("VM.get_all", self.session.handle))
        self.assertIn(b"Success", self.wire.post("/", with_spaces).body)

    def test_ints_are_tagged_in_the_counts_of_an_event_batch_only(self):
        text = self.xml("event.from", self.session.handle, CLASSES % b"*", "",
                        b"<double>0.0</double>")
        before, counts = text.split("<name>valid_ref_counts</name>")
        self.assertNotRegex(before, "<(i4|int|i8|nil|string)")
        tagged = re.findall(r"<name>(\w+)</name><value><i4>(\d+)</i4></value>", counts)
        self.assertEqual(len(re.findall("<i4>", counts)), len(tagged))
        spelt = {name.lower(): name for name in (m.split(".")[0] for m in self.methods())}
        for name, number in tagged:
            if name != "session":
                self.assertEqual(int(number), len(getattr(self.api, spelt[name]).get_all()), name)

    def methods(self):
        text = self.xml("system.listMethods")
        self.assertTrue(text.startswith("<value><array><data><value>"), text[:80])
        return re.findall("<value>([^<]+)</value>", text)

    def test_the_list_of_methods_has_no_status(self):
        methods = self.methods()
        self.assertEqual(json.loads(self.json("system.listMethods"))["result"], methods)
        self.assertEqual([m for m in methods if not re.fullmatch(r"\w+\.\w+", m)], [])
        self.assertNotIn("session.get_all_records", methods)
        for name in methods:
            if name.endswith(".get_all_records"):
                self.assertIsInstance(self.api.__getattr__(name)(), dict)

    def test_failures(self):
        session = self.session.handle
        missing = "MESSAGE_PARAMETER_COUNT_MISMATCH"
        for details, call in (
                (["MESSAGE_METHOD_UNKNOWN", "VM.fly"], ["VM.fly", session]),
                (["MESSAGE_METHOD_UNKNOWN", "vm.get_all"], ["vm.get_all", session]),
                ([missing, "VM.get_record", "1", "0"], ["VM.get_record", session]),
                ([missing, "VM.get_record", "1", "2"], ["VM.get_record", session, self.vm, "x"]),
                ([missing, "VM.migrate_send", "6", "1"], ["Async.VM.migrate_send", session, "x"]),
                (["Fault", "No async mode for this operation (rpc: VM.get_record)"],
                 ["Async.VM.get_record", session, self.vm]),
                (["SESSION_INVALID", NOBODY], ["VM.get_all", NOBODY]),
                (["SESSION_INVALID", NOBODY], ["Async.VM.destroy", NOBODY, self.vm]),
                (["HANDLE_INVALID", "VM", NULL], ["VM.get_record", session, NULL]),
                (["HANDLE_INVALID", "host", "x"], ["host.get_address", session, "x"]),
                (["UUID_INVALID", "VDI", "x"], ["VDI.get_by_uuid", session, "x"]),
                (["EVENT_FROM_TOKEN_PARSE_FAILURE", "x"],
                 ["event.from", session, CLASSES % b"vm", "x", b"<double>0</double>"]),
                (["INVALID_VALUE", "actions_after_crash", "x"],
                 ["VM.set_actions_after_crash", session, self.vm, "x"])):
            with self.subTest(call=call):
                self.assert_failure(details, *call)
                params = [p for p in call[1:] if isinstance(p, str)]
                if len(params) == len(call) - 1:
                    self.assertEqual(self.json(call[0], *params), json.dumps(
                        {"jsonrpc": "2.0", "error": {"code": 1, "message": details[0],
                                                     "data": details[1:]}, "id": 0},
                        separators=(",", ":")))

    def test_a_reference_to_nothing_is_named_by_its_class(self):
        for name in {method.split(".")[0] for method in self.methods()} - {"event", "system", "user", "doctor"}:
            if name != "session":
                with self.subTest(name):
                    self.assert_failure(["HANDLE_INVALID", name, NOBODY], f"{name}.get_record",
                                        self.session.handle, NOBODY)

    def test_json(self):
        session = self.session.handle
        for value, method in (
                (256 * MIB, "VM.get_memory_static_max"), (False, "VM.get_is_a_template"),
                (ORIGIN, "VM.get_snapshot_time"), ({"acpi": "1"}, "VM.get_platform"),
                (["one", "two"], "VM.get_tags"), ("", "VM.get_PV_args"),
                (1.0, "VM.get_HVM_shadow_multiplier")):
            self.assertEqual(self.json(method, session, self.vm), json.dumps(
                {"jsonrpc": "2.0", "result": value, "id": 0}, separators=(",", ":")))
        for value in (7, "7"):
            self.assertEqual(self.json("VM.set_user_version", session, self.vm, value),
                             '{"jsonrpc":"2.0","result":"","id":0}')
            self.assertEqual(self.json("VM.get_user_version", session, self.vm),
                             '{"jsonrpc":"2.0","result":7,"id":0}')
        first = {"method": "VM.get_tags", "params": [session, self.vm], "id": "x"}
        self.assertEqual(self.wire.post("/jsonrpc", json.dumps(first).encode()).body,
                         b'{"result":["one","two"],"error":null,"id":"x"}')
        first["params"][1] = NOBODY
        self.assertEqual(
            json.loads(self.wire.post("/jsonrpc", json.dumps(first).encode()).body),
            {"result": None, "error": ["HANDLE_INVALID", "VM", NOBODY], "id": "x"})

    def test_every_path_but_jsonrpc_speaks_xml(self):
        for path in ("/", "/RPC2", "/xmlrpc", "/json"):
            self.assertTrue(self.xml("pool.get_all", self.session.handle, path=path)
                            .startswith(SUCCESS[0]))
        for name in ("system.isAlive", "system.isAlive:x"):
            self.assertEqual(self.xml(name, "hello"), "<value>hello</value>".join(SUCCESS))

    def test_http(self):
        call = xml_call("pool.get_all", self.session.handle)
        for path in ("/", "/json", "/jsonrpc"):
            answer = self.wire.request("OPTIONS", path)
            self.assertEqual((answer.status, answer.headers["access-control-allow-origin"],
                              answer.headers["access-control-allow-headers"]),
                             (200, "*", "X-Requested-With"))
        self.assertEqual(self.wire.post("/", call).headers["cache-control"], "no-cache, no-store")
        for kwargs, version in (({"version": "HTTP/1.0"}, "HTTP/1.0"),
                                ({"headers": ["Connection: close"]}, "HTTP/1.1")):
            with Connection(self.a.port) as other:
                answer = other.post("/", call, **kwargs)
                self.assertEqual((answer.version, answer.status, answer.headers["connection"]),
                                 (version, 200, "close"))
                self.assertTrue(other.is_closed_by_peer())
        for path, bodies in (("/", (b"", b"{}", b"<methodCall>")),
                             ("/jsonrpc", (b"", b"<a/>", b'{"method":"x","params":[]}'))):
            for body in bodies:
                with self.subTest(path=path, body=body), Connection(self.a.port) as other:
                    answer = other.post(path, body)
                    self.assertEqual((answer.status, answer.headers["content-type"],
                                      answer.headers["connection"]), (500, "text/html", "close"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
