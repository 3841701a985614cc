# SPDX-License-Identifier: Apache-2.0
"""A server that speaks enough XenAPI for the command line, and fails the way a test wants it to.

What a real ferryd does is tested against a real ferryd; this is for what that does not do on demand:
lost connections, odd answers, sessions that end, tasks that end at a chosen moment.
"""

import contextlib
import hashlib
import http.server
import os
import shutil
import ssl
import subprocess
import tempfile
import threading
import time
import uuid
import xmlrpc.client
from xml.sax.saxutils import escape

NULL = "OpaqueRef:NULL"
USER, PASSWORD = "root", "correct horse"


def encode(value):
    if isinstance(value, bool):
        return f"<value><boolean>{int(value)}</boolean></value>"
    if isinstance(value, float):
        return f"<value><double>{value!r}</double></value>"
    if isinstance(value, (list, tuple)):
        return f"<value><array><data>{''.join(map(encode, value))}</data></array></value>"
    if isinstance(value, dict):
        members = "".join(f"<member><name>{escape(k)}</name>{encode(v)}</member>"
                          for k, v in value.items())
        return f"<value><struct>{members}</struct></value>"
    return f"<value>{escape(str(value))}</value>"


def body_of(status, name, value):
    inner = encode({"Status": status, name: value})
    return ('<?xml version="1.0"?><methodResponse><params><param>'
            f"{inner}</param></params></methodResponse>").encode()


class Refusal(Exception):
    """Status Failure with this code and these parameters."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        params, method = xmlrpc.client.loads(body)
        fake = self.server.fake
        fake.calls.append(method)
        if fake.drop and fake.drop(method):
            self.close_connection = True
            return
        try:
            answer = body_of("Success", "Value", fake.call(method, list(params)))
        except Refusal as refusal:
            answer = body_of("Failure", "ErrorDescription", list(refusal.args))
        with contextlib.suppress(OSError):
            self.send_response(200)
            self.send_header("content-type", "text/xml")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        pass


class FakePool:
    """Objects are dicts in self.objects[class][ref]; ints are given as ints. Use as a context
    manager."""

    def __init__(self, name="A"):
        self.name = name
        self.folder = tempfile.mkdtemp(prefix="ferry-fake.")
        self.objects = {c: {} for c in ("pool", "host", "PIF", "network", "SR", "PBD", "VDI", "VBD",
                                        "VIF", "VM", "task", "migration")}
        self.changed = threading.Condition()
        self.generation = {}
        self.clock = 0
        self.calls = []
        self.arguments = {}  # method -> the last call's parameters, without the session
        self.refuse = {}  # method -> [code, params...]
        self.drop = None  # method -> bool: close the connection without an answer
        self.on_migrate = None  # called with the task's ref in a thread of its own
        self.on_cancel = None
        self.sessions = set()
        self.host = self.add("host", name_label=f"host-{name}", enabled=True, address="127.0.0.1",
                             resident_VMs=[], software_version={}, other_config={})
        self.network = self.add("network", name_label="mgmt", bridge="", VIFs=[])
        self.add("PIF", host=self.host, network=self.network, management=True)
        self.sr = self.add("SR", name_label="local", type="file", physical_size=10 << 30,
                           physical_utilisation=1 << 20, virtual_allocation=0, VDIs=[], PBDs=[])
        self.pool = self.add("pool", name_label=f"pool {name}", master=self.host,
                             default_SR=self.sr)

    # --- life ---

    def __enter__(self):
        key, cert = os.path.join(self.folder, "key"), os.path.join(self.folder, "cert")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert,
                        "-days", "2", "-subj", "/CN=fake", "-addext",
                        "subjectAltName=IP:127.0.0.1"], check=True, stderr=subprocess.DEVNULL)
        self.cert = cert
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.fake = self
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True,
                                                 do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        shutil.rmtree(self.folder)

    def _openssl(self, *command, text=None):
        return subprocess.run(["openssl", *command], check=True, input=text,
                              stdout=subprocess.PIPE).stdout

    def key_fingerprint(self):
        pem = self._openssl("x509", "-in", self.cert, "-noout", "-pubkey")
        return hashlib.sha256(self._openssl("pkey", "-pubin", "-outform", "DER", text=pem)).hexdigest()

    def certificate_fingerprint(self):
        return hashlib.sha256(self._openssl("x509", "-in", self.cert, "-outform", "DER")).hexdigest()

    # --- objects ---

    def add(self, kind, **fields):
        ref = f"OpaqueRef:{uuid.uuid4()}"
        record = {"uuid": str(uuid.uuid4()), "name_label": "", "name_description": ""}
        if kind in ("VBD", "VIF", "PIF", "PBD"):
            record = {"uuid": record["uuid"]}
        with self.changed:
            self.objects[kind][ref] = {**record, **fields}
            self._touch(kind, ref)
        return ref

    def uuid(self, kind, ref):
        return self.objects[kind][ref]["uuid"]

    def change(self, kind, ref, **fields):
        with self.changed:
            self.objects[kind][ref].update(fields)
            self._touch(kind, ref)

    def _touch(self, kind, ref):
        self.clock += 1
        self.generation[kind, ref] = self.clock
        self.changed.notify_all()

    def add_vm(self, name, *disks):
        """disks: (name, bytes) each."""
        vm = self.add("VM", name_label=name, power_state="Halted", memory_static_max=256 << 20,
                      VCPUs_max=2, VBDs=[], VIFs=[], is_a_template=False, is_a_snapshot=False,
                      is_control_domain=False, current_operations={}, resident_on=NULL,
                      tags=[], blocked_operations={}, other_config={})
        for number, (label, size) in enumerate(disks):
            vdi = self.add("VDI", name_label=label, SR=self.sr, virtual_size=size,
                           physical_utilisation=size // 2, VBDs=[], type="user")
            vbd = self.add("VBD", VM=vm, VDI=vdi, userdevice=str(number), type="Disk", mode="RW",
                           bootable=False, currently_attached=False)
            self.objects["VDI"][vdi]["VBDs"].append(vbd)
            self.objects["VM"][vm]["VBDs"].append(vbd)
        return vm

    def add_task(self, name="Async.VM.migrate_send"):
        return self.add("task", name_label=name, status="pending", progress=0.0, result="",
                        error_info=[], other_config={}, created="20260101T00:00:00Z",
                        finished="19700101T00:00:00Z", allowed_operations=["cancel"])

    def end_task(self, ref, status, result="", error=(), **other_config):
        record = self.objects["task"][ref]
        self.change("task", ref, status=status, progress=1.0, result=result,
                    error_info=list(error), other_config={**record["other_config"], **other_config})

    # --- calls ---

    def call(self, method, params):
        if method in self.refuse:
            raise Refusal(*self.refuse[method])
        if method == "session.login_with_password":
            if params[:2] != [USER, PASSWORD]:
                raise Refusal("SESSION_AUTHENTICATION_FAILED", params[0], "")
            session = f"OpaqueRef:{uuid.uuid4()}"
            self.sessions.add(session)
            return session
        if params[0] not in self.sessions:
            raise Refusal("SESSION_INVALID", params[0])
        self.arguments[method] = params[1:]
        special = getattr(self, "do_" + method.replace(".", "_"), None)
        if special:
            return special(params[0], *params[1:])
        kind, name = method.split(".", 1)
        if kind not in self.objects:
            raise Refusal("MESSAGE_METHOD_UNKNOWN", method)
        return self.generic(kind, name, params[1:])

    def generic(self, kind, name, params):
        objects = self.objects[kind]
        if name == "get_all_records":
            return objects
        if name == "get_by_uuid":
            for ref, record in objects.items():
                if record["uuid"] == params[0]:
                    return ref
            raise Refusal("UUID_INVALID", kind, params[0])
        if name == "get_by_name_label":
            return [ref for ref, record in objects.items() if record.get("name_label") == params[0]]
        if name == "create" and isinstance(params[0], dict):
            return self.add(kind, **params[0])
        if params[0] not in objects:
            raise Refusal("HANDLE_INVALID", kind, params[0])
        if name == "get_record":
            return objects[params[0]]
        if name == "get_uuid":
            return objects[params[0]]["uuid"]
        if name == "destroy":
            del objects[params[0]]
            return ""
        raise Refusal("MESSAGE_METHOD_UNKNOWN", f"{kind}.{name}")

    def do_session_logout(self, session):
        self.sessions.discard(session)
        return ""

    def do_SR_create(self, _session, host, device_config, size, label, description, kind, content,
                     shared, sm_config):
        return self.add("SR", name_label=label, type=kind)

    def do_host_migrate_receive(self, session, host, network, options):
        return {"session_id": session, "host": host, "master": self.url, "SM": "x", "xenops": "x"}

    def do_VM_assert_can_migrate(self, _session, *_args):
        return ""

    def do_Async_VM_migrate_send(self, _session, *_args):
        task = self.add_task()
        if self.on_migrate:
            threading.Thread(target=self.on_migrate, args=(task,), daemon=True).start()
        return task

    def do_task_cancel(self, _session, task):
        if self.on_cancel:
            self.on_cancel(task)
        return ""

    def do_event_from(self, session, classes, token, timeout):
        kind, ref = classes[0].split("/")
        since = int(token or 0)
        deadline = time.monotonic() + timeout
        with self.changed:
            while self.generation.get((kind, ref), 0) <= since and session in self.sessions:
                if not self.changed.wait(max(0, deadline - time.monotonic())):
                    break
            if session not in self.sessions:
                raise Refusal("SESSION_INVALID", session)
            changed = self.generation.get((kind, ref), 0) > since
            record = dict(self.objects[kind].get(ref, {}))
            events = [{"id": str(self.clock), "timestamp": "0.0", "class": kind, "ref": ref,
                       "operation": "mod" if record else "del",
                       **({"snapshot": record} if record else {})}] if changed else []
            return {"events": events, "token": str(self.clock), "valid_ref_counts": {}}

    def end_sessions(self):
        with self.changed:
            self.sessions.clear()
            self.changed.notify_all()
