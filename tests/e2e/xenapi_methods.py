#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every method that docs/api.md lists, called as it must not be: by the wrong role, with too few and too many parameters,
with values of other types, with handles and uuids of nothing, without a session; by XML-RPC and by JSON-RPC. The page is
made of the method table, and a lint test holds it to that."""

import itertools
import json
import os
import re
import sys
import unittest
import xmlrpc.client

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from contractcase import NOBODY, Contract
from rawhttp import Connection, json_call

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "api.md")
ROLES = ["pool-admin", "pool-operator", "vm-power-admin", "vm-admin", "vm-operator", "read-only"]
USER_PASSWORD = "a password of users"
OF_VMS = ("VM", "VBD", "VDI", "VIF", "network")


class Method:
    """params: pairs of wire type and name."""

    def __init__(self, name, params, n_mandatory, role="read-only", is_async=False):
        self.name, self.params, self.n_mandatory = name, params, n_mandatory
        self.role, self.is_async = role, is_async

    def junk(self):
        return [junk_of(kind) for kind, _ in self.params[:self.n_mandatory]]


def junk_of(kind):
    """A value of that wire type that names nothing."""
    if kind.endswith(" map") or kind.endswith("record") or kind in ("struct", "map"):
        return {}
    if kind.endswith(" set") or kind == "array":
        return []
    return {"int": -1, "bool": False, "float": 0.0, "any": "",
            "datetime": "19700101T00:00:00Z"}.get(kind, NOBODY)


def wrong_of(kind):
    """Values that are not of that wire type."""
    if kind.endswith(" map"):
        return ["text", [], {"key": []}]
    if kind.endswith("record") or kind in ("struct", "map"):
        return ["text", []]
    if kind == "int set" or kind == "array":
        return ["text", {}]
    if kind.endswith(" set"):
        return ["text", {}, [{}]]
    return {"int": ["12x", "", {}, True], "bool": ["true", 1], "float": ["x", []],
            "datetime": ["yesterday", []], "any": []}.get(kind, [{}, [], True])


def role_of_writers(class_name):
    if class_name == "task":
        return "vm-operator"
    return "vm-admin" if class_name in OF_VMS else "pool-operator"


def accessors(class_name, field, kind, access):
    me = (f"{class_name} ref", "self")
    role = role_of_writers(class_name)
    yield Method(f"{class_name}.get_{field}", [me], 1)
    if access != "read, write":
        return
    yield Method(f"{class_name}.set_{field}", [me, (kind, "value")], 2, role)
    if kind == "(string -> string) map":
        yield Method(f"{class_name}.add_to_{field}", [me, ("string", "key"), ("string", "value")], 3, role)
        yield Method(f"{class_name}.remove_from_{field}", [me, ("string", "key")], 2, role)
    if kind == "string set":
        yield Method(f"{class_name}.add_{field}", [me, ("string", "value")], 2, role)
        yield Method(f"{class_name}.remove_{field}", [me, ("string", "value")], 2, role)


def parse_row(line):
    """"- `VM.start(VM ref vm, bool force [, int n]) -> void` (also Async.): Starts it. Role vm-operator." """
    name, inside, rest = re.fullmatch(r"- `([\w.]+)\((.*?)\) -> [^`]+`(.*)", line).groups()
    mandatory, _, optional = inside.partition("[")
    params = [tuple(part.rsplit(" ", 1)) for part in mandatory.strip(" ,").split(", ") if part]
    more = [tuple(part.rsplit(" ", 1)) for part in optional.strip("[] ,").split(", ") if part]
    role = re.search(r" Role ([\w-]+)\.$", rest)
    return Method(name, params + more, len(params), role[1] if role else "read-only", "(also Async.)" in rest)


def parse_page():
    """name -> Method. What is written by hand wins over what follows from a field, as in the daemon."""
    generated, listed, class_name = {}, {}, ""
    with open(PAGE, encoding="utf-8") as page:
        for line in page.read().splitlines():
            if line.startswith("## "):
                class_name = line[3:]
            field = re.fullmatch(r"\| (\w+) \| (.+?) \| (read|create|read, write) \|.*", line)
            if field:
                generated.update((m.name, m) for m in accessors(class_name, *field.groups()))
            if line.startswith("- `"):
                method = parse_row(line)
                listed[method.name] = method
    return {**generated, **listed}


class Wire:
    """One connection, by XML-RPC or JSON-RPC; a call gives its ErrorDescription, or None and keeps the value."""

    def __init__(self, port, is_json):
        self.connection = Connection(port, timeout=60)
        self.is_json = is_json
        self.value = None

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.connection.__exit__(*args)

    def __call__(self, method, *params):
        return self._json(method, params) if self.is_json else self._xml(method, params)

    def _json(self, method, params):
        answer = json.loads(self.connection.post("/jsonrpc", json_call(method, *params)).body)
        self.value = answer.get("result")
        return [answer["error"]["message"], *answer["error"]["data"]] if "error" in answer else None

    def _xml(self, method, params):
        body = xmlrpc.client.dumps(params, method).encode()
        (answer,), _ = xmlrpc.client.loads(self.connection.post("/", body).body)
        if not isinstance(answer, dict) or "Status" not in answer:
            answer = {"Status": "Success", "Value": answer}
        self.value = answer.get("Value")
        return answer["ErrorDescription"] if answer["Status"] == "Failure" else None


class Methods(Contract):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.methods = parse_page()
        cls.served = {name.split(".")[0] for name in cls.methods if name.endswith(".get_record")}
        for role in ROLES:
            cls.a.session.call("user.create", role, USER_PASSWORD, role)

    def setUp(self):
        super().setUp()
        self.wires = [self.enterContext(Wire(self.a.port, is_json)) for is_json in (False, True)]
        self.me = self.session.handle

    def with_session(self):
        """All but those that ask for none, and the calls between agents."""
        return [m for m in self.methods.values() if m.name not in self.open_methods() and
                not m.name.startswith("Peer.")]

    @staticmethod
    def open_methods():
        return ("session.login_with_password", "session.slave_local_login_with_password", "system.listMethods")

    def each(self, methods):
        return itertools.product(self.wires, methods)

    def assert_error(self, expected, wire, name, *params):
        """Its beginning, and one subtest per call, so that one that is wrong hides no other."""
        error = wire(name, *params)
        with self.subTest(name, json=wire.is_json, params=params):
            self.assertEqual((error or [])[:len(expected)], expected)
        return error

    def assert_type_error(self, param, wire, name, *params):
        error = self.assert_error(["FIELD_TYPE_ERROR", param], wire, name, *params)
        with self.subTest(name, json=wire.is_json, params=params):
            self.assertRegex(error[2], f"^{name}: parameter [0-9]+ .* must be .*; this is a ")

    def test_the_page_is_what_is_served(self):
        listed = {name for name in self.methods if not name.startswith("Peer.")}
        for wire in self.wires:
            self.assertIsNone(wire("system.listMethods"))
            self.assertEqual(set(wire.value) ^ listed, set())
        self.assertGreater(len(listed), 800)

    def test_roles(self):
        """Whoever may call it gets as far as what is wrong with its parameters."""
        n_denied = n_passed = 0
        for i, role in enumerate(ROLES):
            for wire in self.wires:
                self.assertIsNone(wire("session.login_with_password", role, USER_PASSWORD))
                session = wire.value
                for method in self.with_session():
                    if method.name == "session.logout":
                        continue
                    error = wire(method.name, session, *method.junk())
                    is_denied = bool(error) and error[0] == "RBAC_PERMISSION_DENIED"
                    n_denied += is_denied
                    n_passed += not is_denied
                    with self.subTest(method.name, role=role, json=wire.is_json):
                        self.assertEqual(is_denied, i > ROLES.index(method.role), error)
                        if is_denied:
                            self.assertEqual(error[1], method.name)
                self.assertIsNone(wire("session.logout", session))
        self.assertGreater(n_denied, 1000)
        self.assertGreater(n_passed, 6000)

    def test_sessions(self):
        for wire, method in self.each(self.with_session()):
            self.assert_error(["SESSION_INVALID", NOBODY], wire, method.name, NOBODY, *method.junk())
            if method.is_async:
                self.assert_error(["SESSION_INVALID", NOBODY], wire, f"Async.{method.name}", NOBODY, *method.junk())
            self.assert_type_error("session_id", wire, method.name, {}, *method.junk())

    def test_calls_between_agents(self):
        peers = [m for m in self.methods.values() if m.name.startswith("Peer.")]
        self.assertGreater(len(peers), 5)
        for wire, method in self.each(peers):
            self.assert_error(["RBAC_PERMISSION_DENIED", method.name], wire, method.name, self.me, *method.junk())

    def test_numbers_of_parameters(self):
        mismatch = "MESSAGE_PARAMETER_COUNT_MISMATCH"
        for wire, method in self.each(self.methods.values()):
            n_session = method.name not in self.open_methods()
            mine = [self.me] if n_session else []
            expected = str(method.n_mandatory)
            if n_session:
                self.assert_error([mismatch, method.name, expected, "-1"], wire, method.name)
            if method.n_mandatory:
                few = method.junk()[:-1]
                self.assert_error([mismatch, method.name, expected, str(len(few))], wire, method.name, *mine, *few)
            many = [junk_of(kind) for kind, _ in method.params] + [""]
            self.assert_error([mismatch, method.name, expected, str(len(many))], wire, method.name, *mine, *many)

    def test_types(self):
        n = 0
        for wire, method in self.each(self.methods.values()):
            mine = [self.me] if method.name not in self.open_methods() else []
            for i, (kind, name) in enumerate(method.params):
                for wrong in wrong_of(kind):
                    params = [junk_of(kind) for kind, _ in method.params]
                    params[i] = wrong
                    self.assert_type_error(name, wire, method.name, *mine, *params)
                    n += 1
        self.assertGreater(n, 4000)

    def test_handles(self):
        n = 0
        for wire, method in self.each(self.with_session()):
            if not method.params or not method.params[0][0].endswith(" ref"):
                continue
            class_name = method.params[0][0].removesuffix(" ref")
            self.assert_error(["HANDLE_INVALID", class_name, NOBODY], wire, method.name, self.me, *method.junk())
            n += 1
        self.assertGreater(n, 1500)

    def test_handles_after_one_that_is_there(self):
        """Fields are set to refs, and work is asked for with a second object."""
        some = {name: (getattr(self.api, name).get_all() or [None])[0] for name in self.served - {"session"}}
        asked = set()
        for wire, method in self.each(self.with_session()):
            kinds = [kind.removesuffix(" ref") for kind, _ in method.params[:method.n_mandatory] if kind.endswith(" ref")]
            if len(kinds) != 2 or kinds[1] not in self.served or not some.get(kinds[0]):
                continue
            asked.add(method.name)
            self.assert_error(["HANDLE_INVALID", kinds[1], NOBODY],
                              wire, method.name, self.me, some[kinds[0]], *method.junk()[1:])
        self.assertLess({"pool.set_default_SR", "VM.start_on", "VDI.copy", "VM.pool_migrate", "host.migrate_receive"}, asked)

    def test_looking_up_what_is_not_there(self):
        for wire in self.wires:
            for name in sorted(self.served):
                if f"{name}.get_by_uuid" in self.methods:
                    for uuid in ("", "no uuid", NOBODY.removeprefix("OpaqueRef:")):
                        self.assert_error(["UUID_INVALID", name, uuid], wire, f"{name}.get_by_uuid", self.me, uuid)
                if f"{name}.get_by_name_label" in self.methods:
                    self.assertIsNone(wire(f"{name}.get_by_name_label", self.me, "nobody"))
                    self.assertEqual(wire.value, [])

    def test_async(self):
        """A task for those that have it, which ends with what is wrong; else a failure of the call."""
        for wire, method in self.each(self.with_session()):
            name = f"Async.{method.name}"
            if not method.is_async:
                self.assert_error(["Fault", f"No async mode for this operation (rpc: {method.name})"],
                                  wire, name, self.me, *method.junk())
            elif method.params and method.params[0][0].endswith(" ref"):
                class_name = method.params[0][0].removesuffix(" ref")
                self.assertIsNone(wire(name, self.me, *method.junk()))
                self.assertEqual(self.outcome(wire.value), ["HANDLE_INVALID", class_name, NOBODY])

    def outcome(self, task):
        token = ""
        while self.api.task.get_status(task) == "pending":
            token = self.api.event_from([f"task/{task}"], token, 30.0)["token"]
        return self.api.task.get_error_info(task)

    def test_names(self):
        unknown = "MESSAGE_METHOD_UNKNOWN"
        for wire in self.wires:
            for name in (".", "VM", "VM.", ".get_all", "vm.get_all", "VM.get_alL", "VM.fly", "VM.get_all.", "VM__get_all",
                         "Async.VM_clone", "Async.Async.VM.clone", "VM.get_all ", "system.multicall", "x" * 5000):
                missing = name.removeprefix("Async.")
                self.assert_error([unknown, missing], wire, name, self.me)
            for method in self.with_session():
                class_name, _, verb = method.name.partition(".")
                self.assert_error(["MESSAGE_PARAMETER_COUNT_MISMATCH", method.name], wire, f"{class_name}_{verb}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
