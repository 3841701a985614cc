#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The API of a pool with many objects: how long the big calls take, and many clients at once. Each VM has two disks; all
is made and asked for through a ferryd of its own. Times are the client's, to the answer's last byte, without decoding."""

import argparse
import json
import os
import selectors
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import MIB, Pool
from rawhttp import Connection, json_call, xml_call


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--vms", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=100, help="that call all the time (100)")
    parser.add_argument("--waiting", type=int, default=500, help="calls of event.from (500)")
    parser.add_argument("--seconds", type=float, default=10, help="of calls by all clients (10)")
    return parser.parse_args()


def in_threads(n, work):
    """work(i) in n threads; the first failure is raised here."""
    failures = []

    def run(i):
        try:
            work(i)
        except Exception as error:
            failures.append(error)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def make(pool, n_vms):
    sr = pool.sr_create()
    pool.network_create()

    def some(first):
        session = pool.session.other()
        for i in range(first, n_vms, 8):
            vm = session.VM.create({"name_label": f"vm {i}", "memory_static_max": str(64 * MIB)})
            for place in range(2):
                vdi = session.VDI.create({"name_label": f"disk {i}", "SR": sr, "virtual_size": str(MIB),
                                          "type": "user", "sharable": False, "read_only": False})
                session.VBD.create({"VM": vm, "VDI": vdi, "userdevice": str(place), "bootable": False,
                                    "mode": "RW", "type": "Disk", "empty": False})
        session.logout()
    in_threads(8, some)
    assert len(pool.session.VM.get_all()) >= n_vms and len(pool.session.VDI.get_all()) == 2 * n_vms


def timed(call):
    begun = time.monotonic()
    answer = call()
    return (time.monotonic() - begun) * 1000, answer


def result(answer):
    decoded = json.loads(answer.body)
    assert "error" not in decoded, decoded
    return decoded["result"]


def show(what, times):
    print(f"{what}: median {statistics.median(times):.1f} ms, longest {max(times):.1f} ms", flush=True)


def records(pool, wire):
    for what, path, body in (("JSON", "/jsonrpc", json_call("VM.get_all_records", pool.session.ref)),
                             ("XML", "/", xml_call("VM.get_all_records", pool.session.ref))):
        taken = [timed(lambda path=path, body=body: wire.post(path, body)) for _ in range(10)]
        show(f"VM.get_all_records, {what}, {len(taken[0][1].body) >> 10} KiB", [t for t, _ in taken])


def deltas(pool, wire, vm):
    def look(token):
        return result(wire.post("/jsonrpc", json_call("event.from", pool.session.ref, ["VM"], token, 0.0)))
    token = look("")["token"]
    times = []
    for i in range(50):
        pool.session.VM.set_name_description(vm, str(i))
        taken, batch = timed(lambda token=token: look(token))
        assert [e["snapshot"]["name_description"] for e in batch["events"]] == [str(i)]
        token = batch["token"]
        times.append(taken)
    show("event.from after one change", times)


def crowd(pool, vm, n, seconds):
    call = json_call("VM.get_record", pool.session.ref, vm)
    times = [[] for _ in range(n)]
    until = time.monotonic() + seconds

    def use(i):
        with Connection(pool.port, 60) as wire:
            while time.monotonic() < until:
                taken, answer = timed(lambda: wire.post("/jsonrpc", call))
                result(answer)
                times[i].append(taken)
    in_threads(n, use)
    all_times = [t for mine in times for t in mine]
    assert all(times), "a client was never answered"
    print(f"{n} clients: {len(all_times) / seconds:.0f} calls/s")
    show("each of them", all_times)


def n_threads(pool):
    return len(os.listdir(f"/proc/{pool.process.pid}/task"))


def arrivals(wires):
    """Milliseconds until each has something to read. Nothing is read meanwhile: that takes longer."""
    begun = time.monotonic()
    times = []
    with selectors.DefaultSelector() as selector:
        for each in wires:
            selector.register(each, selectors.EVENT_READ)
        while len(times) < len(wires):
            ready = selector.select(60)
            assert ready, "60 s without an answer"
            for key, _ in ready:
                selector.unregister(key.fileobj)
                times.append((time.monotonic() - begun) * 1000)
    return times


def long_polls(pool, vm, n):
    token = pool.session.call("event.from", ["task"], "", 0.0)["token"]
    before = n_threads(pool)
    wires = [Connection(pool.port, 60) for _ in range(n)]
    for each in wires:
        each.send_post("/jsonrpc", json_call("event.from", pool.session.ref, ["VM"], token, 60))
    time.sleep(1)
    print(f"{n} calls of event.from wait: {n_threads(pool) - before} threads more")
    pool.session.VM.set_name_description(vm, "for all")
    times = arrivals(wires)
    for each in wires:
        event, = result(each.read_answer())["events"]
        assert event["ref"] == vm
        each.__exit__()
    show("they were told", times)
    assert n_threads(pool) == before


def memory(pool):
    with open(f"/proc/{pool.process.pid}/status", encoding="ascii") as status:
        lines = dict(line.split(":", 1) for line in status)
    print(*(f"{name} {int(lines[name].split()[0]) >> 10} MiB" for name in ("VmRSS", "VmHWM")))


def main():
    options = parse()
    with Pool("A", ferryd_log_level="info") as pool:
        taken, _ = timed(lambda: make(pool, options.vms))
        print(f"{options.vms} VMs with two disks: made in {taken / 1000:.0f} s", flush=True)
        memory(pool)
        vm = pool.session.VM.get_by_name_label("vm 0")[0]
        with Connection(pool.port, 60) as wire:
            records(pool, wire)
            deltas(pool, wire, vm)
        crowd(pool, vm, options.clients, options.seconds)
        long_polls(pool, vm, options.waiting)
        memory(pool)


if __name__ == "__main__":
    main()
