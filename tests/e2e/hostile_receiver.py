#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A destination that means no good, or is broken: it costs the moves to it and nothing else. The source's VM and guest are
unharmed, the agent goes on, other moves are served.

A Liar stands between a sender and a pool that is sound: it has that pool's key, hands calls on, and falsifies answers. FERRY_LONG: more
ways to lead elsewhere, each of which is tried for some 20 s."""

import http.server
import os
import socket
import ssl
import struct
import sys
import threading
import time
import unittest
import xmlrpc.client

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB, Failure, Move, Pool, has_failed, wait_for
from livemove import qmp
from vmstate import different, vm_state
from xensession import wait_by_polling

SETTINGS = {
    "ferryd_data_tls": "off",
    "migration_heartbeat": "300ms",
    "migration_lease": "3s",
    "migration_abandon": "5s",
    "migration_peer_timeout": "4s",
}
SIZE = 8 * MIB
LONG = bool(os.environ.get("FERRY_LONG"))


class Liar:
    """hooks[verb](forward, params): what it answers: a value, bytes as they are, or None: nothing, until it is closed.
    forward(params) asks the sound pool."""

    def __init__(self, pool):
        self.pool, self.hooks, self.closed, self.seen = pool, {}, threading.Event(), []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                outer.serve(self)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.server.handle_error = lambda *_: None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pool.path("state", "tls.crt"), pool.path("state", "tls.key"))
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def forward(self, method, params):
        session = xmlrpc.client.ServerProxy(self.pool.session.url, context=ssl._create_unverified_context())
        with session as server:
            return getattr(server, method)(*params)

    def serve(self, handler):
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        params, method = xmlrpc.client.loads(body)
        verb = method.removeprefix("Peer.")
        self.seen.append(verb)
        hook = self.hooks.get(verb, self.hooks.get("*"))
        answer = hook(lambda changed=params: self.forward(method, changed), params) if hook \
            else self.forward(method, params)
        if answer is None:
            self.closed.wait()
            return
        if not isinstance(answer, bytes):
            answer = xmlrpc.client.dumps((answer,), methodresponse=True, allow_none=True).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "text/xml")
        handler.send_header("Content-Length", str(len(answer)))
        handler.end_headers()
        handler.wfile.write(answer)


def changed(change):
    """A hook that changes what the sound pool answers."""
    def hook(forward, _params):
        answer = forward()
        if answer["Status"] == "Success":
            change(answer["Value"])
        return answer
    return hook


def only_real(hook, params_of_a_dry_run="dry_run"):
    """Not for the preflight: the move is to begin."""
    def wrapped(forward, params):
        manifest = params[2] if len(params) > 2 else {}
        return forward() if isinstance(manifest, dict) and manifest.get(params_of_a_dry_run) else hook(forward, params)
    return wrapped


HEADER = 48  # bytes of an iSCSI PDU's basic header segment (RFC 7143, 11.2.1)


class FakeTarget(threading.Thread):
    """Takes TCP connections as an iSCSI target would, and answers each with `answer(login)`."""

    def __init__(self, answer):
        super().__init__(daemon=True)
        self.answer, self.n = answer, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.n += 1
            with connection:
                connection.settimeout(5)
                try:
                    login = connection.recv(4096)
                    if len(login) < HEADER:  # it has hung up
                        continue
                    connection.sendall(self.answer(login))
                    connection.recv(4096)
                except OSError:
                    pass

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.join()


def redirect(port):
    """RFC 7143, 11.13: a login response of status 0x0101, with the address to go to instead."""
    def answer(login):
        text = f"TargetAddress=127.0.0.1:{port},1\0".encode()
        text += bytes(-len(text) % 4)
        header = bytearray(HEADER)
        header[0] = 0x23
        header[1] = login[1] & 0x0f
        header[5:8] = struct.pack(">I", len(text.rstrip(b"\0")) + 1)[1:]
        header[8:16] = login[8:16]
        header[16:20] = login[16:20]
        header[36], header[37] = 1, 1
        return bytes(header) + text
    return answer


class HostileReceiver(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.a = cls.enterClassContext(Pool("A", **SETTINGS))
        cls.b = cls.enterClassContext(Pool("B", **SETTINGS))
        cls.sr_a, cls.sr_b = cls.a.sr_create(), cls.b.sr_create()
        cls.vdi = cls.a.vdi_create(cls.sr_a, SIZE)
        cls.a.vdi_write(cls.vdi, os.urandom(SIZE))
        cls.vm = cls.a.vm_create("guest", [cls.vdi])
        cls.before = vm_state(cls.a, cls.vm)

    def setUp(self):
        self.liar = self.enterContext(Liar(self.b))
        self.addCleanup(self.show_logs_of_a_failure)

    def show_logs_of_a_failure(self):
        if has_failed(self):
            self.a.show_log(80)
            self.b.show_log(80)

    def begin(self, vm=None, **token):
        move = Move(self.a, self.b, vm or self.vm, self.sr_b)
        move.token.update({"master": self.liar.url, **token})
        return move.begin()

    def assert_unharmed(self, running=()):
        self.assertIsNone(self.a.process.poll(), "the agent has ended")
        self.liar.hooks = {}
        self.a.wait_for_no_leftovers(30, running=running)
        self.b.wait_for_no_leftovers(30)
        self.assertEqual(self.b.session.VDI.get_all(), [])
        self.assertEqual(different(self.before, vm_state(self.a, self.vm)), [])
        self.assertIn("migrate_send", self.a.session.VM.get_allowed_operations(self.vm))

    def assert_costs_its_own_move(self, *words, timeout=60, running=(), **token):
        task = self.begin(**token)
        with self.assertRaises(Failure) as raised:
            wait_by_polling(self.a.session, task, timeout)
        text = " ".join(raised.exception.details)
        for word in words:
            self.assertIn(word, text)
        self.assert_unharmed(running)
        return text

    # --- what is no answer ---

    def test_garbage(self):
        for answer in (b"", b"\0" * 100, b"<html>nginx</html>", b"<?xml version='1.0'?><methodResponse>", b"\xff\xfe" * 1000,
                       b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"):
            with self.subTest(answer=answer[:20]):
                self.liar.hooks = {"prepare": only_real(lambda *_, answer=answer: answer)}
                self.assert_costs_its_own_move()

    def test_bodies_without_end(self):
        self.liar.hooks = {"renew": lambda *_: b" " * (64 * MIB), "prepare": only_real(lambda *_: b"<" * (64 * MIB))}
        self.assert_costs_its_own_move()

    def test_answers_of_another_shape(self):
        for value in ({}, [], "", 7, {"exports": "none"}, {"exports": []}, {"exports": [7]}, {"exports": [{}]},
                      {"exports": [{}] * 1000}, {"exports": [{"size": str(SIZE)}]}):
            with self.subTest(value=repr(value)[:40]):
                self.liar.hooks = {"prepare": only_real(lambda *_, value=value: {"Status": "Success", "Value": value})}
                self.assert_costs_its_own_move()

    def test_failures_that_nobody_knows(self):
        self.liar.hooks = {"prepare": only_real(lambda *_: {"Status": "Failure", "ErrorDescription": ["NO", "x" * 10000]})}
        self.assert_costs_its_own_move("NO")
        self.liar.hooks = {"prepare": only_real(lambda *_: {"Status": "Failure", "ErrorDescription": []})}
        self.assert_costs_its_own_move()

    def test_another_version(self):
        with self.assertRaises(Failure) as raised:
            wait_by_polling(self.a.session, self.begin(ferry_protocol="3"), 30)
        self.assertIn('protocol "3"', raised.exception.details[1])
        self.assert_unharmed()

    # --- time ---

    def test_stalls_can_be_cancelled(self):
        """Others go on meanwhile."""
        for verb in ("prepare", "digest", "seal"):
            with self.subTest(verb=verb):
                self.liar.hooks = {verb: only_real(lambda *_: None)}
                self.liar.seen = []
                task = self.begin()
                wait_for("it stalls", lambda verb=verb: self.liar.seen.count(verb) > (verb == "prepare"), 20)
                other = self.a.vm_create("other", [self.a.vdi_create(self.sr_a, MIB)])
                arrived = Move(self.a, self.b, other, self.sr_b).send()
                vdis = self.b.disks_of(arrived)
                self.b.session.VM.destroy(arrived)
                for vdi in vdis:
                    self.b.session.VDI.destroy(vdi)
                asked = time.monotonic()
                self.a.session.task.cancel(task)
                with self.assertRaises(Failure) as raised:
                    wait_by_polling(self.a.session, task, 20)
                self.assertEqual(raised.exception.code, "TASK_CANCELLED")
                self.assertLess(time.monotonic() - asked, 5)
                self.assert_unharmed()

    def test_late_and_repeated_calls_do_no_harm(self):
        """The sound pool gets each call three times, and the sender the last answer, late."""
        def late(forward, _params):
            forward()
            forward()
            time.sleep(0.3)
            return forward()
        vm = self.a.vm_create("late", [self.a.vdi_create(self.sr_a, MIB)])
        self.liar.hooks = {"*": late}
        arrived = wait_by_polling(self.a.session, self.begin(vm), 60)
        vdis = self.b.disks_of(arrived)
        self.assertEqual(len(vdis), 1)
        self.b.session.VM.destroy(arrived)
        for vdi in vdis:
            self.b.session.VDI.destroy(vdi)
        self.assert_unharmed()

    # --- lies ---

    def test_lies_about_digests(self):
        for lie, words in ((lambda value: value.update(digests="00" * 4096), ("differently",)),
                           (lambda value: value.update(digests="ab" * 4096), ("differently",)),
                           (lambda value: value.update(digests="zz" * 4096), ("digests",)),
                           (lambda value: value.update(digests="ab" * 5000), ("digests",)),
                           (lambda value: value.clear(), ("digests",))):
            with self.subTest(words=words):
                self.liar.hooks = {"digest": changed(lie)}
                self.assert_costs_its_own_move(*words)

    def test_exports_that_lead_elsewhere(self):
        hung = FakeTarget(lambda _: b"")
        self.addCleanup(hung.close)
        junk = FakeTarget(lambda _: os.urandom(4096))
        self.addCleanup(junk.close)
        changes = [{"serial": "another"}, {"size": str(SIZE * 2)}, {"size": str(SIZE // 2)}, {"port": str(junk.port)}]
        if LONG:
            changes += [{"iqn": "iqn.2026-11.org:x"}, {"secret": "wrong" * 4}, {"port": "1"}, {"port": "-1"}, {"port": "99999999"},
                        {"address": "nowhere"}, {"address": ""}, {"port": str(hung.port)}]
        for change in changes:
            def lie(value, change=change):
                for export in value["exports"]:
                    export.update(change)
            with self.subTest(change=change):
                self.liar.hooks = {"prepare": only_real(changed(lie)), "renew": changed(lie)}
                self.assert_costs_its_own_move(timeout=120)
        self.assertGreater(hung.n + junk.n, 0)

    def test_a_login_that_is_redirected(self):
        """Nobody is reached but who was named."""
        elsewhere = FakeTarget(lambda _: b"")
        self.addCleanup(elsewhere.close)
        target = FakeTarget(redirect(elsewhere.port))
        self.addCleanup(target.close)

        def lie(value):
            for export in value["exports"]:
                export["port"] = str(target.port)
        self.liar.hooks = {"prepare": only_real(changed(lie)), "renew": changed(lie)}
        self.assert_costs_its_own_move(timeout=120)
        self.assertGreater(target.n, 0)
        self.assertEqual(elsewhere.n, 0)

    def test_a_seal_that_is_none(self):
        self.liar.hooks = {"seal": lambda *_: {"Status": "Success", "Value": {"state": "RECEIVING"}}}
        self.assert_costs_its_own_move("RECEIVING")

    # --- a guest that runs ---

    def test_a_guest_goes_on(self):
        vm = self.a.vm_create("runs", [self.a.vdi_create(self.sr_a, MIB)])
        self.a.session.VM.start(vm, False, False)
        uuid = self.a.session.VM.get_uuid(vm)
        pid, = self.a.guests()
        self.addCleanup(self.a.session.VM.hard_shutdown, vm)
        for verb, hook in (("seal", lambda *_: b"junk"),
                           ("incoming", changed(lambda value: value.update(door="x", secret="y" * 40))),
                           ("digest", changed(lambda value: value.update(digests="ab" * 4096)))):
            with self.subTest(verb=verb):
                self.liar.seen, self.liar.hooks = [], {verb: hook}
                task = self.begin(vm)
                with self.assertRaises(Failure):
                    wait_by_polling(self.a.session, task, 90)
                self.assertIn(verb, self.liar.seen)
                self.assertEqual(self.a.guests(), [pid])
                self.assert_unharmed([uuid])
                self.assertEqual(self.a.session.VM.get_power_state(vm), "Running")
                self.assertEqual(qmp(self.a, uuid, "query-status")["status"], "running")



if __name__ == "__main__":
    unittest.main(verbosity=2)
