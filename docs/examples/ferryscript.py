# SPDX-License-Identifier: Apache-2.0
"""What the examples share: a session with a pool, tasks that are followed, and an orderly end at Ctrl-C."""

import argparse
import hashlib
import hmac
import http.client
import os
import signal
import ssl
import sys
import time
import xmlrpc.client

DONE, FAILED, USAGE, CANCELLED = 0, 1, 2, 3
NULL = "OpaqueRef:NULL"


class Problem(Exception):
    """Said to the user in one line; the script ends with FAILED."""


class Failure(Problem):
    """A call that the server refused; `details` is XenAPI's code and parameters."""

    def __init__(self, details):
        super().__init__(f"{details[0]}: {', '.join(details[1:])}" if details[1:] else details[0])
        self.details = details


class PinnedConnection(http.client.HTTPSConnection):
    """TLS to a server that is known by the SHA-256 of its certificate."""

    def __init__(self, host, fingerprint, **kwargs):
        super().__init__(host, **kwargs)
        self._fingerprint = fingerprint

    def connect(self):
        super().connect()
        shown = hashlib.sha256(self.sock.getpeercert(binary_form=True)).hexdigest()
        if not hmac.compare_digest(shown, self._fingerprint):
            self.close()
            raise Problem(f"the certificate of {self.host} is not the one that is pinned: its SHA-256 is {shown}")


class Transport(xmlrpc.client.SafeTransport):
    def __init__(self, fingerprint, ca_file, timeout):
        context = ssl.create_default_context(cafile=ca_file)
        if fingerprint:
            # The pin says more than a name does.
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        super().__init__(context=context)
        self._fingerprint, self._timeout = fingerprint, timeout

    def make_connection(self, host):
        if self._connection and host == self._connection[0]:
            return self._connection[1]
        name, _, _ = self.get_host_info(host)
        if self._fingerprint:
            connection = PinnedConnection(name, self._fingerprint, context=self.context, timeout=self._timeout)
        else:
            connection = http.client.HTTPSConnection(name, context=self.context, timeout=self._timeout)
        self._connection = host, connection
        return connection


class _Call:
    def __init__(self, session, name):
        self._session, self._name = session, name

    def __getattr__(self, part):
        return _Call(self._session, f"{self._name}.{part}")

    def __call__(self, *args):
        return self._session.call(self._name, *args)


class Session:
    """session.VM.get_all() calls VM.get_all with the session in front."""

    def __init__(self, url, user, password, fingerprint=None, ca_file=None, timeout=120):
        self.url = url
        self._server = xmlrpc.client.ServerProxy(url, transport=Transport(fingerprint, ca_file, timeout))
        self._ref = self._raw("session.login_with_password", user, password, "1.0", "ferry-example")

    def _raw(self, method, *args):
        try:
            answer = getattr(self._server, method)(*args)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            raise Problem(f"{self.url}: {error}") from error
        if answer["Status"] != "Success":
            raise Failure(answer["ErrorDescription"])
        return answer["Value"]

    def call(self, method, *args):
        return self._raw(method, self._ref, *args)

    def __getattr__(self, name):
        return _Call(self, name)

    def close(self):
        try:
            self._raw("session.logout", self._ref)
        except Problem:
            pass  # it ends by itself


def sha256(text):
    plain = text.replace(":", "").lower()
    if len(plain) != 64 or set(plain) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError("a SHA-256 has 64 hexadecimal digits")
    return plain


def positive(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a number, 1 or more")
    return int(text)


def add_server(parser, prefix="", what="the pool"):
    """--url and the like, or --to-url for the prefix "to-"."""
    group = parser.add_argument_group(f"{what}")
    group.add_argument(f"--{prefix}url", required=True, help=f"https://HOST[:PORT] of the coordinator of {what}")
    group.add_argument(f"--{prefix}user", default="root", help="default: root")
    group.add_argument(f"--{prefix}password-file", required=True, metavar="FILE", help="its first line is the password")
    trust = group.add_mutually_exclusive_group()
    trust.add_argument(f"--{prefix}fingerprint", type=sha256, metavar="SHA256",
                       help="of the certificate that the server must show")
    trust.add_argument(f"--{prefix}ca-file", metavar="FILE", help="certificates that vouch for the server; else the system's")


def add_move(parser, source, there, at_once):
    """What a script asks for that moves VMs from one pool to another: both pools, and where to in the second."""
    add_server(parser, what=source)
    add_server(parser, "to-", there)
    parser.add_argument("--sr", required=True, help="where the disks go: uuid or name, in the other pool")
    parser.add_argument("--network", help="what network cards are joined to there: uuid or name; needed for VMs with cards")
    parser.add_argument("--at-once", type=positive, default=at_once, metavar="N", help=f"moves at once; default: {at_once}")


def login(options, prefix=""):
    def option(name):
        return getattr(options, f"{prefix}{name}".replace("-", "_"))
    try:
        with open(option("password-file"), encoding="utf-8") as file:
            password = file.readline().rstrip("\n")
        if option("ca-file"):
            open(option("ca-file"), "rb").close()
    except OSError as error:
        raise Problem(f"{error.filename}: {error.strerror}") from error
    if not option("url").startswith("https://"):
        raise Problem(f"{option('url')} does not begin with https://")
    return Session(option("url"), option("user"), password, option("fingerprint"), option("ca-file"))


def find(session, class_name, name):
    """The ref of the object of that uuid or name."""
    found = [ref for ref, record in getattr(session, class_name).get_all_records().items()
             if name in (record["uuid"], record["name_label"])]
    if len(found) != 1:
        raise Problem(f"{session.url} has {len(found) or 'no'} {class_name} called {name}")
    return found[0]


class Moves:
    """Tasks that this script began: a limited number at once, the others wait here; each has a label for the report."""

    def __init__(self, session, limit):
        self.session, self.limit = session, limit
        self.running = {}   # task -> label
        self.results = {}   # label -> "moved" or why not
        self.was_interrupted = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)

    def _interrupt(self, *_):
        self.was_interrupted = True

    def say(self, label, text):
        self.results[label] = text
        print(f"{label}: {text}", flush=True)

    def begin(self, label, call):
        """call() begins it and returns its task."""
        try:
            self.running[call()] = label
            print(f"{label}: begun", flush=True)
        except Failure as failure:
            self.say(label, str(failure))

    def settle(self):
        """Notes those that have ended."""
        for task, label in list(self.running.items()):
            record = self.session.task.get_record(task)
            if record["status"] == "pending":
                continue
            del self.running[task]
            self.session.task.destroy(task)
            if record["status"] == "success":
                self.say(label, "moved")
            else:
                self.say(label, "cancelled" if record["status"] == "cancelled" else str(Failure(record["error_info"])))

    def cancel(self):
        """What has been committed meanwhile is not cancelled any more, and ends well."""
        for task in self.running:
            try:
                self.session.task.cancel(task)
            except Failure as failure:
                print(f"{self.running[task]}: {failure}", file=sys.stderr)

    def run(self, waiting, may_begin=lambda: True, may_go_on=lambda: True):
        """waiting: [(label, call)]. Until none is left; cancels what runs at an interrupt, or when may_go_on() ends."""
        waiting, is_cancelled = list(waiting), False
        while self.running or waiting:
            ends = self.was_interrupted or not may_go_on()
            if ends or not may_begin():
                for label, _ in waiting:
                    self.say(label, "not begun")
                waiting = []
            if ends and not is_cancelled:
                self.cancel()
                is_cancelled = True
            while waiting and len(self.running) < self.limit:
                self.begin(*waiting.pop(0))
            self.settle()
            if self.running:
                time.sleep(0.3)

    def report(self):
        """Prints it; the exit status."""
        moved = sum(text == "moved" for text in self.results.values())
        print(f"{moved} of {len(self.results)} moved")
        if self.was_interrupted:
            return CANCELLED
        return DONE if moved == len(self.results) else FAILED


def move_to_pool(source, there, vm, sr, network=None, options=None):
    """Begins to move the VM with its disks into an SR of another pool; the task."""
    host = next((ref for ref, record in there.host.get_all_records().items() if any(
        pbd["host"] == ref and pbd["currently_attached"] and pbd["SR"] == sr
        for pbd in there.PBD.get_all_records().values()) and record["enabled"]), None)
    if host is None:
        raise Problem(f"no enabled host of {there.url} has that SR plugged in")
    management = [pif["network"] for pif in there.PIF.get_all_records().values() if pif["host"] == host and pif["management"]]
    token = there.host.migrate_receive(host, management[0], {})
    vbds = [source.VBD.get_record(vbd) for vbd in source.VM.get_VBDs(vm)]
    vdi_map = {vbd["VDI"]: sr for vbd in vbds if vbd["type"] == "Disk" and vbd["VDI"] != NULL}
    vif_map = {vif: network for vif in source.VM.get_VIFs(vm)} if network else {}
    return source.Async.VM.migrate_send(vm, token, True, vdi_map, vif_map, options or {})


def guests(session):
    """VMs proper: ref -> record."""
    return {ref: vm for ref, vm in session.VM.get_all_records().items()
            if not (vm["is_a_template"] or vm["is_control_domain"] or vm["is_a_snapshot"])}


def main(work, options):
    """Runs work(options) and ends the program."""
    try:
        sys.exit(work(options))
    except Problem as problem:
        print(f"{os.path.basename(sys.argv[0])}: {problem}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(CANCELLED)
