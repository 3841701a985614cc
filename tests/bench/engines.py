# SPDX-License-Identifier: Apache-2.0
"""Who copies: Ferry and what people use today, each as it would be used, over TCP on loopback."""
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

RUN_SECONDS = 600


class EngineError(Exception):
    """A copy that failed; says why."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_listener(port, name):
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise EngineError(f"{name} does not listen")


def await_file(path, name):
    for _ in range(500):
        if os.path.exists(path):
            return
        time.sleep(0.01)
    raise EngineError(f"{name} has not started")


def machine_cpu_seconds():
    """What all processes have used, user and kernel, without idle and iowait (proc(5))."""
    with open("/proc/stat", encoding="ascii") as stat:
        user, nice, system, _, _, irq, softirq = map(int, stat.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Process:
    """A child whose CPU time and memory are known when it has ended."""

    def __init__(self, command, **more):
        self.name = os.path.basename(command[0])
        self.child = subprocess.Popen(command, **more)
        self.cpu_seconds = 0.0
        self.rss_kib = 0

    def wait(self):
        _, status, usage = os.wait4(self.child.pid, 0)
        self.child.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.rss_kib = usage.ru_maxrss
        return self.child.returncode

    def end(self):
        """Ends it if it still runs."""
        if self.child.returncode is None:
            os.kill(self.child.pid, signal.SIGTERM)  # terminate() would reap it, uncounted
            self.wait()

    def must_succeed(self):
        if self.wait():
            raise EngineError(f"{self.name} failed: exit status {self.child.returncode}")


def measure(servers, copy_all):
    """Times copy_all(), which returns the processes that it started; ends the servers."""
    with contextlib.ExitStack() as stack:
        for server in servers:
            stack.callback(server.end)
        others, start = machine_cpu_seconds(), time.monotonic()
        clients = copy_all()
        seconds = time.monotonic() - start
        others = machine_cpu_seconds() - others
    clients = [client for client in clients if client not in servers]
    used = sum(process.cpu_seconds for process in [*clients, *servers])
    return {"seconds": seconds, "cpu_seconds": sum(p.cpu_seconds for p in clients),
            "target_cpu_seconds": sum(p.cpu_seconds for p in servers),
            "others_cpu_seconds": max(others - used, 0),
            "rss_kib": sum(p.rss_kib for p in clients),
            "target_rss_kib": sum(p.rss_kib for p in servers)}


def run_commands(commands):
    clients = [Process(command) for command in commands]
    errors = []
    for client in clients:
        try:
            client.must_succeed()
        except EngineError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return clients


class BenchCopy:
    """The copier, or qemu-img, into exports of a tgtd that is started as the product starts it."""

    program = os.path.join(os.environ.get("FERRY_BIN", "build/dev/bin"), "bench_copy")

    def __init__(self, name, *needs):
        self.name = name
        self.needs = [self.program, "/usr/sbin/tgtd", *needs]

    def run(self, pairs, args):
        command = [self.program, "--threads", str(args.threads)]
        command += ["--used"] if args.allocated else []
        command += [self.name, *(path for pair in pairs for path in pair)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=RUN_SECONDS)
        if done.returncode:
            raise EngineError(f"{self.name} failed: see its message above")
        return json.loads(done.stdout)


class Nbdcopy:
    """nbdcopy to nbdkit's file plugin, with as many connections as its authors advise."""

    needs = ["nbdcopy", "nbdkit"]

    def __init__(self, name, in_tls):
        self.name = name
        self.in_tls = in_tls

    def run(self, pairs, args):
        keys = f"{pairs[0][1]}.keys"
        with open(keys, "w", encoding="ascii") as out:
            out.write(f"ferry:{os.urandom(32).hex()}\n")
        servers, copies = [], []
        try:
            for source, dest in pairs:
                port = free_port()
                servers.append(Process(
                    ["nbdkit", "--foreground", "--ipaddr=127.0.0.1", f"--port={port}",
                     *(["--tls=require", f"--tls-psk={keys}"] if self.in_tls else []),
                     "file", dest]))
                await_listener(port, "nbdkit")
                url = (f"nbds://ferry@127.0.0.1:{port}?tls-psk-file={keys}" if self.in_tls
                       else f"nbd://127.0.0.1:{port}")
                copies.append(["nbdcopy", "--connections=4", "--flush",
                               *([] if args.allocated else ["--destination-is-zero"]),
                               source, url])
            return measure(servers, lambda: run_commands(copies))
        finally:
            for server in servers:
                server.end()
            os.unlink(keys)


class Qmp:
    """Just enough of QMP to run one job, over the standard streams of a process."""

    def __init__(self, child):
        self.child = child
        self.read()
        self.call("qmp_capabilities")

    def read(self):
        line = self.child.stdout.readline()
        if not line:
            raise EngineError("qemu-storage-daemon ended")
        return json.loads(line)

    def call(self, command, **arguments):
        self.child.stdin.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.child.stdin.flush()
        while True:
            answer = self.read()
            if "error" in answer:
                raise EngineError(f"{command}: {answer['error']['desc']}")
            if "return" in answer:
                return

    def await_event(self, name):
        while True:
            event = self.read()
            if event.get("event") == "BLOCK_JOB_ERROR":
                raise EngineError(f"the mirror failed: {event['data']}")
            if event.get("event") == name:
                if "error" in event["data"]:
                    raise EngineError(f"the mirror failed: {event['data']['error']}")
                return


class Mirror:
    """QEMU's blockdev-mirror to qemu-nbd, until it has ended: what live tools are built on."""

    name = "mirror"
    needs = ["qemu-storage-daemon", "qemu-nbd"]

    def run(self, pairs, _args):
        processes, qmps = [], []
        try:
            for source, dest in pairs:
                port = free_port()
                ready = f"{dest}.pid"
                processes.append(Process(["qemu-nbd", "-f", "raw", "-b", "127.0.0.1", "-p",
                                          str(port), "-x", "d", "--pid-file", ready, dest]))
                await_file(ready, "qemu-nbd")
                os.unlink(ready)
                daemon = Process(
                    ["qemu-storage-daemon", "--chardev", "stdio,id=q", "--monitor", "chardev=q",
                     "--blockdev", f"raw,node-name=s,file.driver=file,file.filename={source}",
                     "--blockdev", f"nbd,node-name=d,export=d,server.type=inet,"
                                   f"server.host=127.0.0.1,server.port={port}"],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                processes.append(daemon)
                qmps.append(Qmp(daemon.child))
            return self.sides(processes, measure(processes, lambda: self.copy(qmps)))
        finally:
            for process in processes:
                process.end()
                for stream in (process.child.stdin, process.child.stdout):
                    if stream:
                        stream.close()

    def sides(self, processes, result):
        """Of the servers, each second one is the sender's."""
        senders, targets = processes[1::2], processes[::2]
        return {**result, "cpu_seconds": sum(p.cpu_seconds for p in senders),
                "target_cpu_seconds": sum(p.cpu_seconds for p in targets),
                "rss_kib": sum(p.rss_kib for p in senders),
                "target_rss_kib": sum(p.rss_kib for p in targets)}

    def copy(self, qmps):
        errors = []

        def one(qmp):
            try:
                qmp.call("blockdev-mirror", **{"job-id": "m", "device": "s", "target": "d",
                                               "sync": "full"})
                qmp.await_event("BLOCK_JOB_READY")
                qmp.call("block-job-complete", device="m")
                qmp.await_event("BLOCK_JOB_COMPLETED")
            except EngineError as error:
                errors.append(error)

        threads = [threading.Thread(target=one, args=(qmp,)) for qmp in qmps]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return []


class Dd:
    """dd from file to file: no network, no other side, no second process. The limit."""

    name = "dd"
    needs = ["dd"]

    def run(self, pairs, _args):
        return measure([], lambda: run_commands(
            [["dd", f"if={source}", f"of={dest}", "bs=1M", "conv=notrunc,fsync", "status=none"]
             for source, dest in pairs]))


ENGINES = {engine.name: engine for engine in (
    BenchCopy("ferry"), BenchCopy("qemu-img", "/usr/bin/qemu-img"), Nbdcopy("nbdcopy", False),
    Mirror(), Dd(), BenchCopy("ferry-tls"), Nbdcopy("nbdcopy-tls", True), BenchCopy("bound"),
    BenchCopy("bound-tls"))}


def find(names):
    """The engines of these names, in their order; says what is missing."""
    for name in names:
        for program in ENGINES[name].needs:
            if not shutil.which(program):
                print(f"skipped: {name} needs {program}", file=sys.stderr)
                return None
    return [ENGINES[name] for name in names]
