# SPDX-License-Identifier: Apache-2.0
"""Pools for tests: each is a ferryd with folders, port and user of its own, and is gone afterwards.

Environment: FERRY_BIN, the folder of ferryd and ferry.
"""

import contextlib
import errno
import hashlib
import os
import pwd
import random
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
import xmlrpc.client

from faultpoints import FaultPoints
from xensession import BUSY, Failure, Session

BIN = os.path.abspath(os.environ.get("FERRY_BIN") or os.path.join(
    os.path.dirname(__file__), "..", "..", "build", "dev", "bin"))
PASSWORD = "correct horse battery"
NULL = "OpaqueRef:NULL"
# What a guest's folder may hold while it runs; a watchdog that outlived its agent leaves two.
GUEST_FILES = ("qmp", "qmp2", "console", "console.log", "pid", "qemu.log", "nbd", "memory",
               "watchdog", "watchdog.log")
MIB = 1 << 20
GIB = 1 << 30


def wait_for(what, condition, timeout, interval=0.05):
    """Waits until condition() is true and returns what it returned; `what` names it in the error. timeout: seconds that it
    may take on a machine that does nothing else; it is there to end a wait that is in vain, and a busy machine gets more."""
    timeout *= BUSY
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(interval)


_claims = []  # sockets with the names of the ports that this process has


def bind_if_free(probe, address):
    try:
        probe.bind(address)
        return True
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False


def free_port():
    """A port below the range that the kernel hands out, so that nobody takes it by chance. It is this process's until it
    ends, as a name in the abstract namespace: another test would find it free while a daemon restarts."""
    for _ in range(100):
        port = random.randrange(20000, 30000)
        claim = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            if bind_if_free(claim, f"\0ferry-test-port-{port}") and bind_if_free(probe, ("127.0.0.1", port)):
                _claims.append(claim)
                return port
        claim.close()
    raise RuntimeError("no free port between 20000 and 30000")


def daemon_user():
    """ferryd runs unprivileged: as nobody when root runs the test, else as whoever runs it."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())


def give(path):
    """Makes a file or folder the daemon's."""
    if os.geteuid() == 0:
        user = daemon_user()
        os.chown(path, user.pw_uid, user.pw_gid)


def small_folder(case, folder, size):
    """A file system of that size, or a skipped test where that is not allowed."""
    os.mkdir(folder)
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if sudo and not shutil.which("sudo"):
        case.skipTest("mounting a tmpfs needs root or sudo")
    mount = [*sudo, "mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        case.skipTest("mounting a tmpfs needs root or sudo without a password")
    case.addCleanup(subprocess.run, [*sudo, "umount", "--lazy", folder], check=True)
    if sudo:
        subprocess.run([*sudo, "chown", str(os.geteuid()), folder], check=True)
    give(folder)
    return folder


def data_extents(path):
    """(offset, length) of the runs of a file that may hold data."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        offset = 0
        while offset < size:
            try:
                start = os.lseek(file.fileno(), offset, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            offset = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            yield start, offset - start


def digest(path):
    """SHA-256 over size, and number and content of every 1 MiB block that is not all zeros.

    Equal for equal content, whatever is a hole and what is written zeros; a sparse file is not read
    where it has holes.
    """
    total = hashlib.sha256(str(os.path.getsize(path)).encode())
    zeros = bytes(MIB)
    last = -1
    with open(path, "rb") as file:
        for offset, length in data_extents(path):
            first = max(offset // MIB, last + 1)
            last = (offset + length - 1) // MIB
            for block in range(first, last + 1):
                data = os.pread(file.fileno(), MIB, block * MIB)
                if data != zeros[:len(data)]:
                    total.update(b"%d:" % block)
                    total.update(data)
    return total.hexdigest()


def allocated(path):
    return os.stat(path).st_blocks * 512


def processes_naming(text):
    """Pids of the processes whose command line or environment names `text`."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{name}", "rb") as file:
                    if text.encode() in file.read():
                        found.append(int(pid))
                        break
            except OSError:
                continue
    return found


def program_of(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def has_failed(case):
    """For a test's clean-up: whether the test, or a part of it, has failed. `_outcome.success` is about the clean-up then."""
    result = case._outcome.result
    return any(getattr(test, "test_case", test) is case for test, _ in result.failures + result.errors)


class Pool:
    """One pool of one host. Use as a context manager, or call stop() and remove()."""

    def __init__(self, name, parent="/tmp", detached=False, address="127.0.0.1", enter=(),
                 points=False, **settings):
        """detached: it goes on when the terminal that started it is closed or interrupted.
        points: the daemon looks for fault points, see self.points.
        address: where it listens; enter: command that runs another in its network namespace."""
        self.name = name
        self.detached = detached
        self.address = address
        self.enter = list(enter)
        # Short, since sockets lie below it (sun_path has 108 bytes).
        self.root = tempfile.mkdtemp(prefix="f.", dir=parent)
        os.chmod(self.root, 0o755)
        self.port = free_port()
        self.url = f"https://{address}:{self.port}"
        self.process = None
        self.session = None
        self.host = None
        self.coordinator = None  # the Pool that this host is a member of
        self.settings = settings
        for folder in ("state", "run", "sr"):
            os.mkdir(self.path(folder), 0o750)
            give(self.path(folder))
        self.points = FaultPoints(self.path("state", "inject"), give) if points else None
        self._write_config()
        try:
            self._set_password()
        except BaseException:
            self.remove()
            raise

    def path(self, *parts):
        return os.path.join(self.root, *parts)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.show_log()
            self.remove()
            raise

    def __exit__(self, kind, value, trace):
        if kind is not None:
            self.show_log()
        try:
            self.stop()
        finally:
            self.remove()

    # --- the process ---

    def _write_config(self):
        sections = {
            "ferryd": {
                "user": daemon_user().pw_name,
                "state_dir": self.path("state"),
                "run_dir": self.path("run"),
                "listen": f"{self.address}:{self.port}",
                "address": self.address,
                "data_address": self.address,
                "pool_name": f"pool {self.name}",
                "host_name": f"host-{self.name}",
                "login_delay": "100ms",
                "log_level": "debug",
            },
            "migration": {},
            "pool": {},
            "copy": {},
            "tgt": {},
            "guest": {"watchdog": os.path.join(BIN, "ferry-watchdog")},
        }
        for key, value in self.settings.items():
            section, name = key.split("_", 1)
            sections[section][name] = str(value)
        with open(self.path("ferryd.conf"), "w", encoding="utf-8") as file:
            for section, keys in sections.items():
                if keys:
                    file.write(f"[{section}]\n")
                    file.writelines(f"{key} = {value}\n" for key, value in keys.items())

    def configure(self, **settings):
        """Changes settings for the next start: migration_bandwidth="4MiB"."""
        self.settings.update(settings)
        self._write_config()

    def ferryd(self, *args, **kwargs):
        return subprocess.run(
            [os.path.join(BIN, "ferryd"), "--config", self.path("ferryd.conf"), *args],
            check=False, capture_output=True, text=True, timeout=30, **kwargs)

    def _set_password(self):
        done = self.ferryd("--set-password", "root", input=PASSWORD + "\n")
        if done.returncode != 0:
            raise RuntimeError(f"ferryd --set-password: {done.stderr or done.stdout}")

    def start(self):
        with open(self.path("log"), "ab") as log:
            self.process = subprocess.Popen(
                [*self.enter, os.path.join(BIN, "ferryd"), "--config", self.path("ferryd.conf")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                start_new_session=self.detached)
        self.session = wait_for(f"pool {self.name} answers", self._try_login, 20)
        if self.coordinator is None:
            self.host = self.session.pool.get_all_records().popitem()[1]["master"]
        return self

    def ferry(self, *args):
        """The command line, against this pool; it has no terminal."""
        config = self.path("ferry.conf")
        with open(os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w",
                  encoding="utf-8") as file:
            file.write(f"[server pool]\nurl = {self.url}\nuser = root\npassword = {PASSWORD}\n"
                       f"ca_file = {self.path('state', 'tls.crt')}\n")
        return subprocess.run(
            [os.path.join(BIN, "ferry"), "--config", config, "--server", "pool", *args],
            check=False, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
            start_new_session=True)

    def log(self):
        with open(self.path("log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    # --- pools of several hosts ---

    def join(self, coordinator):
        """This host becomes a member; from then on its session is one with the coordinator."""
        self.session.pool.join(f"{coordinator.address}:{coordinator.port}", "root", PASSWORD)
        self.coordinator = coordinator
        self._forget_session()
        self.session = wait_for(f"{self.name} is a member", self._try_login, 20)
        return self

    def left(self):
        """The coordinator has ejected this host."""
        self.coordinator = None
        self._forget_session()
        self.session = wait_for(f"{self.name} is a pool of its own", self._try_login, 20)
        return self

    def _try_login(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"ferryd of pool {self.name} ended: {self.process.returncode}")
        try:
            session = Session(self.url, "root", PASSWORD)
            # One that is about to become a member, or has not become a pool of its own yet.
            return session if self.coordinator is None else session.close()
        except (OSError, xmlrpc.client.ProtocolError):
            return None  # not yet, or not any more: 503
        except Failure as failure:
            if failure.code == "HOST_IS_SLAVE" and self.coordinator is not None:
                return Session(self.coordinator.url, "root", PASSWORD)
            if failure.code in ("HOST_STILL_BOOTING", "HOST_IS_SLAVE",
                                "OTHER_OPERATION_IN_PROGRESS"):
                return None
            raise

    def _forget_session(self):
        if self.session is not None:
            self.session.close()
            self.session = None

    def fingerprint(self):
        """SHA-256 of the certificate that it shows."""
        pem = ssl.get_server_certificate((self.address, self.port))
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()

    def stop(self):
        """SIGTERM: it must end well, soon, and leave no process behind."""
        if self.process is None:
            return
        self._forget_session()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError(f"ferryd of pool {self.name} did not end within 15 s of SIGTERM") \
                from None
        self.process = None
        if status != 0:
            self.show_log()
            raise RuntimeError(f"ferryd of pool {self.name} ended with {status} after SIGTERM")
        self.wait_for_no_process()

    def kill(self):
        """kill -9: its children must follow it."""
        self._forget_session()
        self.process.kill()
        self.process.wait()
        self.process = None
        self.wait_for_no_process()

    def killed(self, timeout=60):
        """It has killed itself, at a fault point; its children must follow it."""
        self.process.wait(timeout)
        status = self.process.returncode
        if status != -signal.SIGKILL:
            raise AssertionError(f"ferryd of pool {self.name} ended with {status}, not by a fault point")
        self._forget_session()
        self.process = None
        self.wait_for_no_process()

    def reboot(self):
        """All processes of the host at once, guests and watchdogs too, as by a power cut; databases and disks
        survive. It is not started again."""
        self._forget_session()

        def send(number):
            pids = [pid for pid in processes_naming(self.root) if program_of(pid) in (
                "ferryd", "tgtd", "qemu-nbd", "qemu-system-x86", "ferry-watchdog")]
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            return pids

        send(signal.SIGSTOP)
        send(signal.SIGKILL)
        self.process.wait()
        self.process = None
        # One was just being started perhaps.
        wait_for(f"no process of pool {self.name} is left", lambda: not send(signal.SIGKILL), 10)
        # The kernel of a host that starts again has no sockets.
        shutil.rmtree(self.path("run"))
        os.mkdir(self.path("run"), 0o750)
        give(self.path("run"))

    def restart(self):
        self.stop()
        return self.start()

    def remove(self):
        for pid in processes_naming(self.root):
            if program_of(pid) in (
                    "ferryd", "tgtd", "qemu-system-x86", "ferry-watchdog"):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.root)

    def show_log(self, lines=60):
        if os.path.exists(self.path("log")):
            with open(self.path("log"), encoding="utf-8", errors="replace") as file:
                tail = file.readlines()[-lines:]
            sys.stderr.write(f"--- last lines of {self.name}'s log\n{''.join(tail)}---\n")

    # --- what is left ---

    def tgtds(self):
        return [pid for pid in processes_naming(self.path("run")) if program_of(pid) == "tgtd"]

    def guests(self):
        """Pids of the guests that run here: they outlive the daemon."""
        return [pid for pid in processes_naming(self.path("run"))
                if program_of(pid) == "qemu-system-x86"]

    def watchdogs(self):
        return [pid for pid in processes_naming(self.path("run")) if program_of(pid) == "ferry-watchdog"]

    def image_servers(self):
        """Pids of what reads images for moves."""
        return [pid for pid in processes_naming(self.path("run")) if program_of(pid) == "qemu-nbd"]

    def wait_for_no_process(self):
        def none_left():
            return not [pid for pid in processes_naming(self.root)
                        if program_of(pid) in ("ferryd", "tgtd", "qemu-nbd")]
        wait_for(f"no process of pool {self.name} is left", none_left, 10)

    def leftovers(self, running=()):
        """What a pool with no migration under way must not have, and no guests but those of the
        VMs (uuids) that run: tgtd, watchdog and QEMU processes, image files that no VDI names,
        VDIs without a file, folders and sockets, what a dead migration recorded."""
        found = [f"tgtd process {pid}" for pid in self.tgtds()]
        found += [f"qemu-nbd process {pid}" for pid in self.image_servers()]
        found += [f"{program_of(pid)} process {pid}" for pid in processes_naming(self.path("run"))
                  if program_of(pid).startswith("ferry-")]
        folders = [self.path("run", "guests", uuid) for uuid in running]
        mine = {pid for folder in folders for pid in processes_naming(folder)}
        found += [f"QEMU process {pid}" for pid in self.guests() if pid not in mine]
        locations = {}
        for vdi in self.session.VDI.get_all_records().values():
            locations.setdefault(vdi["SR"], set()).add(vdi["location"])
        for pbd in self.session.PBD.get_all_records().values():
            folder = pbd["device_config"]["location"]
            files = set(os.listdir(folder)) - {".ferry-sr"}
            named = locations.get(pbd["SR"], set())
            found += [f"file without VDI: {folder}/{name}" for name in sorted(files - named)]
            found += [f"VDI without file: {folder}/{name}" for name in sorted(named - files)]
        for parent, _, names in os.walk(self.path("run")):
            kept = GUEST_FILES if parent in folders else ("url", "lock")
            found += [os.path.join(parent, name) for name in names if name not in kept]
        busy = [vm["name_label"] for vm in self.session.VM.get_all_records().values()
                if vm["current_operations"]]
        folder = self.path("run", "guests")
        if os.path.isdir(folder):
            found += [os.path.join(folder, name) for name in os.listdir(folder)
                      if name not in running]
        found += self._recorded()
        found += [f"VM with current operations: {name}" for name in busy]
        # It looks for itself, and finds no less; when there is nothing, neither does it find anything.
        return found or [f"doctor: {finding}" for finding in self.session.doctor.examine(self.host)]

    def _ask_agent_db(self, *query):
        db = sqlite3.connect(f"file:{self.path('state', 'agent.db')}?mode=ro", uri=True)
        with contextlib.closing(db):
            return [text for text, in db.execute(*query)]

    def _recorded(self):
        """Rows of agent.db that only a migration under way has."""
        return ["agent.db: " + text for text in self._ask_agent_db(
            "SELECT 'resource ' || kind || ' ' || name FROM resources WHERE owner <> ''"
            " UNION ALL SELECT 'migration ' || uuid || ' in ' || state FROM migrations"
            " WHERE finished = 0"
            " UNION ALL SELECT count(*) || ' extents' FROM extents HAVING count(*) > 0")]

    def stored_states(self, role):
        """States of the migrations under way, as they are stored: before what they do."""
        return set(self._ask_agent_db(
            "SELECT state FROM migrations WHERE finished = 0 AND role = ?", (role,)))

    def wait_for_no_leftovers(self, timeout=20, running=()):
        deadline = time.monotonic() + timeout * BUSY
        while self.leftovers(running):
            if time.monotonic() > deadline:
                raise AssertionError(f"left in pool {self.name}: {self.leftovers(running)}")
            time.sleep(0.1)

    # --- objects ---

    def sr_create(self, label="local", folder=None, shared=False):
        if folder is None:
            folder = tempfile.mkdtemp(prefix="s", dir=self.path("sr"))
            give(folder)
        return self.session.SR.create(
            self.host, {"location": folder}, "0", label, "", "file", "user", shared, {})

    def sr_attach(self, sr, folder):
        """This host reaches the shared SR too: the PBD."""
        pbd = self.session.PBD.create({
            "host": self.host, "SR": sr, "device_config": {"location": folder}, "other_config": {}})
        self.session.PBD.plug(pbd)
        return pbd

    def network(self):
        """The network of the management interface."""
        for pif in self.session.PIF.get_all_records().values():
            if pif["management"]:
                return pif["network"]
        raise AssertionError(f"pool {self.name} has no management PIF")

    def network_create(self, label="guests"):
        return self.session.network.create({
            "name_label": label, "name_description": "", "MTU": "1500", "other_config": {},
            "bridge": "", "managed": True, "tags": []})

    def vdi_create(self, sr, size, label="disk", image="raw"):
        return self.session.VDI.create({
            "name_label": label, "name_description": f"a disk of {size} bytes", "SR": sr,
            "virtual_size": str(size), "type": "user", "sharable": False, "read_only": False,
            "other_config": {"made-by": "ferrytest"}, "xenstore_data": {},
            "sm_config": {} if image == "raw" else {"image-format": image},
            "tags": ["tested"]})

    def vdi_path(self, vdi):
        record = self.session.VDI.get_record(vdi)
        pbd = self.session.SR.get_PBDs(record["SR"])[0]
        folder = self.session.PBD.get_device_config(pbd)["location"]
        return os.path.join(folder, record["location"])

    def vdi_write(self, vdi, data, offset=0):
        with open(self.vdi_path(vdi), "r+b") as file:
            file.seek(offset)
            file.write(data)

    def vm_create(self, label, disks=(), networks=(), **fields):
        vm = self.session.VM.create(vm_record(label, **fields))
        for number, vdi in enumerate(disks):
            self.session.VBD.create({
                "VM": vm, "VDI": vdi, "userdevice": str(number), "bootable": number == 0,
                "mode": "RW", "type": "Disk", "unpluggable": True, "empty": False,
                "other_config": {"number": str(number)}, "qos_algorithm_type": "",
                "qos_algorithm_params": {}})
        for number, network in enumerate(networks):
            self.session.VIF.create({
                "device": str(number), "network": network, "VM": vm,
                "MAC": f"02:00:5e:{random.randrange(256):02x}:{random.randrange(256):02x}:"
                       f"{number:02x}",
                "MTU": "1500", "other_config": {}, "qos_algorithm_type": "",
                "qos_algorithm_params": {}, "locking_mode": "network_default",
                "ipv4_allowed": [], "ipv6_allowed": []})
        return vm

    def disks_of(self, vm):
        """VDI refs of a VM's disks, in order of their device numbers."""
        vbds = [self.session.VBD.get_record(ref) for ref in self.session.VM.get_VBDs(vm)]
        vbds = [vbd for vbd in vbds if vbd["type"] == "Disk"]
        return [vbd["VDI"] for vbd in sorted(vbds, key=lambda vbd: int(vbd["userdevice"]))]

    def vifs_of(self, vm):
        return self.session.VM.get_VIFs(vm)

    def vm_by_uuid(self, uuid):
        try:
            return self.session.VM.get_by_uuid(uuid)
        except Failure as failure:
            if failure.code != "UUID_INVALID":
                raise
            return None


def vm_record(label, **fields):
    """What scripts give to VM.create."""
    record = {
        "name_label": label, "name_description": "made by a test", "user_version": "1",
        "is_a_template": False, "affinity": NULL,
        "memory_static_max": str(256 * MIB), "memory_dynamic_max": str(256 * MIB),
        "memory_dynamic_min": str(128 * MIB), "memory_static_min": str(128 * MIB),
        "VCPUs_params": {"weight": "256"}, "VCPUs_max": "2", "VCPUs_at_startup": "2",
        "actions_after_shutdown": "destroy", "actions_after_reboot": "restart",
        "actions_after_crash": "restart", "PV_bootloader": "", "PV_kernel": "", "PV_ramdisk": "",
        "PV_args": "", "PV_bootloader_args": "", "PV_legacy_args": "",
        "HVM_boot_policy": "BIOS order", "HVM_boot_params": {"order": "cd"},
        "HVM_shadow_multiplier": 1.0, "platform": {"acpi": "1"}, "PCI_bus": "",
        "other_config": {"purpose": "test"}, "recommendations": "",
        "xenstore_data": {}, "ha_always_run": False, "ha_restart_priority": "",
        "tags": ["one", "two"], "blocked_operations": {}, "start_delay": "0",
        "shutdown_delay": "0", "order": "0",
    }
    record.update(fields)
    return record


class Move:
    """The arguments of one VM.migrate_send from pool `a` to pool `b`, as scripts gather them."""

    def __init__(self, a, b, vm, sr, network=None, options=None):
        self.a, self.b, self.vm = a, b, vm
        self.token = b.session.host.migrate_receive(b.host, b.network(), {})
        self.vdi_map = {vdi: sr for vdi in a.disks_of(vm)}
        self.vif_map = {vif: network for vif in a.vifs_of(vm)} if network else {}
        self.options = options or {}

    def arguments(self):
        return (self.vm, self.token, True, self.vdi_map, self.vif_map, self.options)

    def check(self):
        return self.a.session.VM.assert_can_migrate(*self.arguments())

    def send(self, session=None):
        """Synchronous: the VM's ref in pool b."""
        return (session or self.a.session).VM.migrate_send(*self.arguments())

    def begin(self):
        """The task."""
        return self.a.session.Async.VM.migrate_send(*self.arguments())
