#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ferry's live move against QEMU's own blockdev-mirror with its memory migration: the same guest, disk and link, interleaved.

The guest writes 4 KiB blocks at random at a fixed rate. "ferry" is VM.migrate_send between two pools; "mirror" and
"mirror-wb" are what QEMU offers: blockdev-mirror to a qemu-nbd at the destination (copy-mode background and write-blocking),
then migrate with pause-before-switchover, the mirror ended at the switch. Afterwards the guest reads all it wrote, and the
destination's image is compared with its table. Pauses are those of the guest's console. Needs root (a network namespace),
unless --link is 0.
"""
import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import linuxguest  # noqa: E402
from ferrytest import MIB, Move, Pool, free_port, wait_for  # noqa: E402
from liveguest import LiveGuest, verify_image  # noqa: E402
from livemove import newest_migration  # noqa: E402
from slowlink import SlowLink  # noqa: E402
from xensession import wait_by_events  # noqa: E402

SKIP = 77


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--link", type=int, default=20, help="MiB/s; 0: loopback without a limit (20)")
    parser.add_argument("--data", type=int, default=128, help="MiB that the disk holds before (128)")
    parser.add_argument("--region", type=int, default=256, help="MiB that are written to (256)")
    parser.add_argument("--rate", type=int, default=600, help="writes of 4 KiB a second (600)")
    parser.add_argument("--memory", type=int, default=128, help="MiB of the guest (128)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--give-up", type=int, default=120, help="seconds until a mirror must be ready (120)")
    parser.add_argument("--engines", default="ferry,mirror,mirror-wb", help="which of them (all)")
    parser.add_argument("--json", action="store_true", help="results as JSON")
    return parser.parse_args()


class Monitor:
    """One QMP connection, with its events and when they came."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)
        self.lines = self.socket.makefile("r", encoding="utf-8")
        self.events = []
        self.call("qmp_capabilities")

    def close(self):
        self.lines.close()
        self.socket.close()

    def _next(self):
        message = json.loads(self.lines.readline())
        if "event" in message:
            self.events.append((time.monotonic(), message))
        return message

    def call(self, command, **arguments):
        message = {"execute": command, "arguments": arguments, "id": command}
        self.socket.sendall(json.dumps(message).encode() + b"\n")
        while (answer := self._next()).get("id") != command:
            pass
        if "error" in answer:
            raise RuntimeError(f"{command}: {answer['error']}")
        return answer["return"]

    def find(self, name, **data):
        """When the event came, if it did."""
        for when, event in self.events:
            if event["event"] == name and all(event["data"].get(key) == value for key, value in data.items()):
                return when
        return None

    def wait(self, name, timeout, **data):
        deadline = time.monotonic() + timeout
        while not (when := self.find(name, **data)):
            if time.monotonic() > deadline:
                return None
            self.socket.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                self._next()
            except TimeoutError:
                self.lines = self.socket.makefile("r", encoding="utf-8")
            finally:
                self.socket.settimeout(30)
        return when


class Machine:
    """A folder with a QEMU of the command line that Ferry gave the same guest, where LiveGuest finds the console. Ferry's
    own may not connect to anything (Landlock), so the mirror has machines of its own at both ends."""

    def __init__(self, name, argv, uuid, source_folder, source_disk, enter=()):
        self.name, self.enter = name, list(enter)
        self.root = tempfile.mkdtemp(prefix="f.")
        self.folder = self.path("run", "guests", uuid)
        os.makedirs(self.folder)
        self.image = self.path("disk")
        with open(self.image, "wb") as file:
            file.truncate(os.path.getsize(source_disk))
        self.argv = [word.replace(source_folder, self.folder).replace(source_disk, self.image) for word in argv]
        self.processes = []
        self.monitor = None

    def path(self, *parts):
        return os.path.join(self.root, *parts)

    def run(self, argv):
        process = subprocess.Popen([*self.enter, *argv], stdin=subprocess.DEVNULL)
        self.processes.append(process)
        return process

    def start(self, *more):
        self.run([*self.argv, *more])
        wait_for("QEMU's monitor", lambda: os.path.exists(os.path.join(self.folder, "qmp")), 20)
        self.monitor = Monitor(os.path.join(self.folder, "qmp"))

    def close(self):
        if self.monitor:
            self.monitor.close()
        for process in self.processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.root)


class Destination(Machine):
    """It waits for the disk (qemu-nbd) and for the memory."""

    def __init__(self, link, *args):
        super().__init__("destination", *args, link.enter if link else ())
        self.address = link.far if link else "127.0.0.1"
        self.nbd_port, self.memory_port = free_port(), free_port()
        self.nbd = None

    def listen(self):
        self.nbd = self.run(["qemu-nbd", "-t", "-x", "disk", "-b", self.address, "-p", str(self.nbd_port),
                             "--cache=none", "--discard=unmap", "--detect-zeroes=off", "-f", "raw", self.image])
        self.start("-incoming", "defer", "-S")
        set_capabilities(self.monitor, "return-path", "events")
        self.monitor.call("migrate-incoming", uri=f"tcp:{self.address}:{self.memory_port}")


def set_capabilities(monitor, *names):
    monitor.call("migrate-set-capabilities",
                 capabilities=[{"capability": name, "state": True} for name in names])


def make_guest(pool, args, pools):
    return LiveGuest(pool, "bench", [((args.region + 16) * MIB, f"random:{args.rate}:4:{args.region}:{args.data}")],
                     pools=pools, memory=args.memory * MIB)


def writes_at(guest, when):
    """(guest's ms, writes) of the last status before."""
    return [(event["ms"], event["disks"][0]["writes"]) for seen, event, _ in guest.console.events
            if event["event"] == "status" and seen <= when][-1]


def figures(guest, args, begun, ended):
    """A status comes each second: rates are of whole seconds within the move, and the next one."""
    guest.next_status()
    guest.next_status()
    (ms_0, writes_0), (ms_1, writes_1) = writes_at(guest, begun), writes_at(guest, ended + 1.1)
    answer = guest.verify_inside()
    return {"seconds": ended - begun, "pause_ms": guest.console.pause(begun) * 1000,
            "rate": (writes_1 - writes_0) * 1000 / (ms_1 - ms_0),
            "slowest_ms": answer["disks"][0]["max_us"] / 1000, "ready": True}


def run_ferry(args, link):
    ends = ({"address": link.near}, {"address": link.far, "enter": link.enter}) if link else ({}, {})
    with Pool("A", **ends[0]) as a, Pool("B", **ends[1]) as b:
        with make_guest(a, args, [a, b]) as guest:
            guest.start()
            guest.next_status()
            move = Move(a, b, guest.vm, b.sr_create())
            sent = link.sent() if link else 0
            begun = time.monotonic()
            task = move.begin()
            wait_by_events(a.session, task, 600.0)
            ended = time.monotonic()
            sent = (link.sent() if link else 0) - sent
            guest.now_in(b)
            guest.console.wait_for_tick(b)
            result = {**figures(guest, args, begun, ended), "sent_mib": sent / MIB}
            record = newest_migration(a)
            result["told_pause"] = {name: float(value) for name, value in record["pause"].items()}
            result["predicted_ms"] = float(record["predicted_pause"])
            guest.verify_outside()
            b.session.VM.hard_shutdown(guest.vm)
            return result


def mirror(source, there, mode, give_up):
    """Until the destination runs; None when the mirror does not become ready."""
    source.call("blockdev-add", **{
        "driver": "nbd", "node-name": "there", "export": "disk", "discard": "unmap",
        "server": {"type": "inet", "host": there.address, "port": str(there.nbd_port)}})
    source.call("blockdev-mirror", **{
        "job-id": "mirror", "device": "d0", "target": "there", "sync": "full", "copy-mode": mode})
    if not source.wait("BLOCK_JOB_READY", give_up):
        return None
    set_capabilities(source, "events", "pause-before-switchover", "return-path")
    source.call("migrate-set-parameters", **{"max-bandwidth": 100 * MIB, "downtime-limit": 100})
    source.call("migrate", uri=f"tcp:{there.address}:{there.memory_port}")
    if not source.wait("MIGRATION", give_up, status="pre-switchover"):
        raise RuntimeError("the memory did not arrive")
    source.call("block-job-cancel", device="mirror")
    source.wait("BLOCK_JOB_COMPLETED", 60)
    source.call("blockdev-del", **{"node-name": "there"})
    there.nbd.terminate()
    there.nbd.wait()
    source.call("migrate-continue", state="pre-switchover")
    if not there.monitor.wait("MIGRATION", 60, status="completed"):
        raise RuntimeError("the destination did not get everything")
    there.monitor.call("cont")
    return there.monitor.wait("RESUME", 10)


def run_mirror(args, link, mode):
    with Pool("A") as a, contextlib.ExitStack() as cleanup:
        guest = cleanup.enter_context(make_guest(a, args, []))
        guest.call("start", True, False)
        with open(f"/proc/{a.guests()[0]}/cmdline", "rb") as file:
            argv = [word for word in file.read().decode().split("\0")[:-1] if word != "-S"]
        guest.call("hard_shutdown")
        where = (argv, guest.uuid, a.path("run", "guests", guest.uuid), guest.disk_paths()[0])
        here, there = Machine("source", *where), Destination(link, *where)
        cleanup.callback(here.close)
        cleanup.callback(there.close)
        guest.console.pools += [here, there]
        guest.pool = here
        here.start()
        guest.console.wait_for_event("ready")
        guest.next_status()
        there.listen()
        sent = link.sent() if link else 0
        begun = time.monotonic()
        ended = mirror(here.monitor, there, mode, args.give_up)
        sent = (link.sent() if link else 0) - sent
        if ended:
            guest.pool = there
        result = {**figures(guest, args, begun, ended or time.monotonic()), "sent_mib": sent / MIB,
                  "ready": bool(ended)}
        if ended:
            disk = guest.command("stop")["disks"][0]
            verify_image("table", there.image, disk["disk"], disk["hash"])
        return result


def run(engine, args):
    link = SlowLink(args.link * MIB) if args.link else None
    try:
        if engine == "ferry":
            return run_ferry(args, link)
        return run_mirror(args, link, "write-blocking" if engine == "mirror-wb" else "background")
    finally:
        if link:
            link.close()


def summarize(runs, args):
    done = [result for result in runs if result["ready"]]

    def median(key, digits=1):
        return round(statistics.median(result[key] for result in done), digits) if done else None
    return {"ready": len(done), "runs": len(runs), "seconds": median("seconds"), "pause_ms": median("pause_ms", 0),
            "max_pause_ms": round(max(result["pause_ms"] for result in done)) if done else None,
            "sent_mib": median("sent_mib", 0), "slowest_ms": median("slowest_ms", 0),
            "rate_kept": round(100 * statistics.median(result["rate"] for result in runs) / args.rate)}


def main():
    args = parse()
    linuxguest.kernel()
    results = {engine: [] for engine in args.engines.split(",")}
    for i in range(args.rounds):
        for engine in sorted(results, reverse=bool(i % 2)):
            results[engine].append(run(engine, args))
            print(f"{engine}: {results[engine][-1]}", file=sys.stderr, flush=True)
    summary = {engine: summarize(runs, args) for engine, runs in results.items()}
    if args.json:
        print(json.dumps({"arguments": vars(args), "runs": results, "summary": summary}, indent=2))
        return 0
    print(f"{args.data} MiB of data, {args.rate} writes of 4 KiB a second over {args.region} MiB, "
          + (f"a link of {args.link} MiB/s" if args.link else "loopback"))
    print(f"{'':10} {'ready':>7} {'seconds':>8} {'pause ms':>9} {'max':>6} {'rate %':>7} {'sent MiB':>9} {'slowest ms':>11}")
    for engine, s in summary.items():
        cells = [f"{s['ready']}/{s['runs']}", s["seconds"], s["pause_ms"], s["max_pause_ms"], s["rate_kept"],
                 s["sent_mib"], s["slowest_ms"]]
        print(f"{engine:10}" + "".join(f" {str('-' if cell is None else cell):>{width}}"
                                       for cell, width in zip(cells, (7, 8, 9, 6, 7, 9, 11))))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except unittest.SkipTest as skipped:
        print(f"skipped: {skipped}", file=sys.stderr)
        sys.exit(SKIP)
