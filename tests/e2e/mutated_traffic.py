#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a client really sent, with bytes changed, cut, doubled and mixed, to a daemon over TLS: each answer is one of the
contract's, and the daemon goes on, with no more memory, threads and descriptors than before.

FERRY_SECONDS: for how long. FERRY_SEED: another run; with FERRY_LONG each is another."""

import json
import os
import random
import re
import sys
import threading
import time
import unittest
import xmlrpc.client

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB, PASSWORD, Pool, wait_for  # noqa: E402
from rawhttp import Connection, json_call  # noqa: E402
from xensession import BUSY, Failure, Session, Transport  # noqa: E402

LONG = os.environ.get("FERRY_LONG")
SECONDS = float(os.environ.get("FERRY_SECONDS") or (600 if LONG else 6))
SEED = int(os.environ.get("FERRY_SEED") or (time.time_ns() if LONG else 1))
ANSWER_SECONDS = 1
N_CLIENTS = 16
RSS_MAX = 256 * MIB
SANITIZER_MAX = 1024 * MIB  # AddressSanitizer keeps 256 MiB of what was given back, and more around it
STATUS = {200, 206, 302, 400, 401, 403, 404, 405, 408, 409, 411, 413, 414, 415, 416, 417, 422, 431, 500, 501, 503, 505, 507}
TOKENS = [b"", b"\0", b"\xff", b"\xef\xbf\xbe", b"<", b">", b"&", b"&amp;", b"&#0;", b"&x;", b"]]>", b"<![CDATA[", b"<!--",
          b"<!DOCTYPE a [<!ENTITY x \"y\">]>", b"<value>", b"</value>", b"<struct>", b"<array><data>", b"<i4>", b"<nil/>",
          b"<boolean>2</boolean>", b"9223372036854775808", b"-1", b"1e999", b"NaN", b"{", b"}", b"[", b"]", b"\"", b"\\u0000",
          b"\\ud800", b"null", b"true", b",", b":", b"\r\n", b"\r\n\r\n", b"Content-Length: 5\r\n",
          b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"OpaqueRef:NULL", b"%", b"%00", b"../", b"?", b"A" * 70000]


class Recorder(Transport):
    """Keeps what it sends."""

    def __init__(self, timeout):
        super().__init__(timeout)
        self.bodies = []

    def send_content(self, connection, request_body):
        self.bodies.append(request_body)
        super().send_content(connection, request_body)


def record(session, calls):
    """The bodies of these calls as the client sends them, and the same as JSON-RPC."""
    recorder = Recorder(60.0)
    server = xmlrpc.client.ServerProxy(session.url, transport=recorder)
    for method, *params in calls:
        getattr(server, method)(session.ref, *params)
    server("close")()
    bodies = [("POST", "/", body) for body in recorder.bodies]
    return bodies + [("POST", "/jsonrpc", json_call(method, session.ref, *params)) for method, *params in calls]


class Mutant:
    """A request as bytes, and some harm done to it."""

    def __init__(self, chance, requests):
        method, path, body = chance.choice(requests)
        self.chance = chance
        for _ in range(chance.choice((0, 1, 1, 1, 2, 4, 8))):
            body = self.harm(body, chance.choice(requests)[2])
        if chance.random() < 0.1:
            path = self.harm(path.encode(), b"/").decode("latin-1")
        length = len(body) if chance.random() < 0.9 else chance.choice((0, 1, len(body) + 1, len(body) // 2, -1, 2**63, 10**30))
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")
        if chance.random() < 0.1:
            head = self.harm(head, head)
        self.data = head + body
        if chance.random() < 0.05:
            self.data = self.data[:chance.randrange(len(self.data) + 1)]

    def harm(self, data, other):
        chance = self.chance
        at, to = sorted((chance.randrange(len(data) + 1), chance.randrange(len(data) + 1)))
        kind = chance.randrange(6)
        if kind == 0 and data:
            at = chance.randrange(len(data))
            return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1:]
        if kind == 1:
            return data[:at] + data[to:]
        if kind == 2:
            return data[:to] + data[at:]
        if kind == 3:
            return data[:at] + chance.choice(TOKENS) + data[at:]
        if kind == 4:
            return data[:at] + chance.choice(TOKENS) + data[to:]
        return data[:at] + other[chance.randrange(len(other) + 1):]


class MutatedTraffic(unittest.TestCase):

    def setUp(self):
        self.pool = self.enterContext(Pool("A", ferryd_login_delay="0s", ferryd_log_level="warn"))
        self.api = self.pool.session
        self.sr, self.network = self.pool.sr_create(), self.pool.network_create()
        self.vdi = self.pool.vdi_create(self.sr, MIB)
        self.vm = self.pool.vm_create("a VM", [self.vdi], [self.network])
        self.vm_uuid = self.api.VM.get_uuid(self.vm)
        self.n_sent = [0] * N_CLIENTS
        self.api.call("user.create", "client", PASSWORD, "vm-power-admin")

    def requests(self, session):
        """Of a session that may work with VMs, and not end the host's own."""
        calls = [
            ("VM.get_all_records",), ("VM.get_record", self.vm), ("VM.get_all_records_where", 'field "name_label" = "a VM"'),
            ("VM.set_name_label", self.vm, "a VM"), ("VM.add_to_other_config", self.vm, "k", "v"),
            ("VM.remove_from_other_config", self.vm, "k"), ("VM.set_other_config", self.vm, {"a": "b"}),
            ("VM.set_blocked_operations", self.vm, {}), ("VM.clone", self.vm, "again"), ("VM.get_possible_hosts", self.vm),
            ("VM.create", {"name_label": "new", "memory_static_max": str(64 * MIB), "PV_args": "quiet"}),
            ("VDI.create", {"name_label": "new", "SR": self.sr, "virtual_size": str(MIB), "type": "user", "sharable": False,
                            "read_only": False, "other_config": {}}),
            ("VDI.get_record", self.vdi), ("VDI.snapshot", self.vdi, {}), ("SR.get_all_records",), ("host.get_all_records",),
            ("event.from", ["VM", f"VDI/{self.vdi}"], "", 0.0), ("Async.VM.start", self.vm, True, False),
            ("task.get_all_records",), ("VM.get_by_uuid", self.vm_uuid),
            ("VM.assert_can_migrate", self.vm, {"host": "x", "session_id": "y"}, True, {self.vdi: self.sr}, {}, {}),
            ("session.get_record", session.ref),
        ]
        query = f"session_id={session.ref}&vdi={self.vdi}&format=raw"
        return record(session, calls) + [
            ("POST", "/", xmlrpc.client.dumps(("client", PASSWORD, "1.0", "x"), "session.login_with_password").encode()),
            ("GET", f"/export_raw_vdi?{query}", b""), ("PUT", f"/import_raw_vdi?{query}", b"x" * 5000),
            ("GET", f"/export_metadata?session_id={session.ref}&uuid={self.vm_uuid}", b""),
            ("PUT", f"/import_metadata?session_id={session.ref}&dry_run=true", b"PK\3\4" + b"ustar" * 300),
            ("GET", "/", b""), ("GET", "/nothing", b""), ("OPTIONS", "/", b""),
        ]

    # --- what must hold ---

    def check_answer(self, answer, sent):
        self.assertIn(answer.status, STATUS, sent)
        kind = answer.headers.get("content-type", "")
        if answer.status == 200 and kind.startswith("text/xml"):
            try:
                (value,), _ = xmlrpc.client.loads(answer.body)
            except xmlrpc.client.Fault as fault:
                self.assertTrue(fault.faultString, sent)
                return
            if isinstance(value, dict) and value.get("Status") == "Failure":
                self.check_codes(value["ErrorDescription"], sent)
        elif answer.status == 200 and kind.startswith("application/json"):
            decoded = json.loads(answer.body)
            error = decoded.get("error")
            if error:
                self.check_codes([error["message"], *error["data"]] if isinstance(error, dict) else error, sent)

    def check_codes(self, description, sent):
        self.assertRegex(description[0], r"\A[A-Z][A-Z0-9_]+\Z", sent)
        self.assertTrue(all(isinstance(each, str) for each in description), sent)

    def rss_max(self):
        with open(f"/proc/{self.pool.process.pid}/maps", encoding="utf-8") as file:
            return SANITIZER_MAX if re.search(r"lib[at]san", file.read()) else RSS_MAX

    def status(self):
        with open(f"/proc/{self.pool.process.pid}/status", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        n_fds = len(os.listdir(f"/proc/{self.pool.process.pid}/fd"))
        return int(lines["VmRSS"].split()[0]) << 10, int(lines["Threads"]), n_fds

    def send(self, mutant):
        """Answered, or the connection is ended; half of a request is waited for, so that nobody answers."""
        try:
            with Connection(self.pool.port, ANSWER_SECONDS) as wire:
                wire.send(mutant.data)
                answer = wire.read_answer()
        except (OSError, KeyError, IndexError, ValueError):
            return  # ended without an answer, or none that is in one piece
        self.check_answer(answer, mutant.data[:2000])

    def be_client(self, number, until, failures):
        """The login is renewed: a mutant may have logged out, or have changed what the others are about."""
        chance = random.Random(SEED + number)
        try:
            while time.monotonic() < until and not failures:
                session = Session(self.pool.url, "client", PASSWORD, 60.0)
                requests = self.requests(session)
                for _ in range(200):
                    if time.monotonic() > until:
                        break
                    self.send(Mutant(chance, requests))
                    self.n_sent[number] += 1
                session.close()
        except Failure as failure:
            if failure.code != "SESSION_INVALID":
                failures.append(failure)
        except Exception as failure:
            failures.append(failure)

    def try_to(self, method, *args):
        try:
            self.api.call(method, *args)
        except Failure:
            pass  # another client is at it

    def tidy(self):
        """What the clients made, so that lists stay short; guests that they started."""
        for vm, record in self.api.VM.get_all_records().items():
            if record["is_control_domain"]:
                continue
            if record["power_state"] != "Halted":
                self.try_to("VM.hard_shutdown", vm)
            if vm != self.vm:
                self.try_to("VM.destroy", vm)
        for vdi, record in self.api.VDI.get_all_records().items():
            if not record["VBDs"]:
                self.try_to("VDI.destroy", vdi)

    def settled(self):
        return not [task for task in self.api.task.get_all_records().values() if task["status"] == "pending"]

    def test_nothing_hurts_it(self):
        print(f"FERRY_SEED={SEED}", flush=True)
        _, n_threads, n_fds = self.status()
        rss_max = self.rss_max()
        until, failures = time.monotonic() + SECONDS, []
        clients = [threading.Thread(target=self.be_client, args=(number, until, failures)) for number in range(N_CLIENTS)]
        for client in clients:
            client.start()
        while any(client.is_alive() for client in clients):
            time.sleep(0.5)
            if len(self.api.VM.get_all()) > 100 or time.monotonic() > until:
                self.tidy()
            self.assertIsNone(self.pool.process.poll(), "ferryd has ended")
            self.assertLess(self.status()[0], rss_max)
            begun = time.monotonic()
            self.assertEqual(self.api.host.get_all(), [self.pool.host])
            self.assertLess(time.monotonic() - begun, 5 * BUSY)
        print(f"{sum(self.n_sent)} requests", flush=True)
        if failures:
            raise failures[0]
        self.assertGreater(min(self.n_sent), 0)
        wait_for("all tasks have ended", self.settled, 60)
        wait_for("threads and descriptors are what they were", lambda: self.status()[1] <= n_threads + 8
                 and self.status()[2] <= n_fds + 8, 60)
        self.assertFalse(re.search("Sanitizer|runtime error", self.pool.log()))


if __name__ == "__main__":
    unittest.main()
