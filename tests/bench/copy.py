#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ferry's copier against qemu-img: random data into a fresh export of a tuned tgtd, interleaved.

--tls measures Ferry through its data port too, beside nbdcopy to nbdkit with and without TLS (over
TCP, 4 connections), where they are installed (libnbd-bin, nbdkit).

Every run has a tgtd and a file of its own; its content is compared afterwards (bench_copy exits
with an error when it differs). Before each run as much memory as the copy needs is written to and
freed again, so that neither side pays for pages that a hypervisor has to fetch first.
"""
import argparse
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

SKIP = 77
MIB = 1 << 20


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=2048, help="MiB of random data (2048)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--dir", default="/dev/shm", help="where the files lie (/dev/shm)")
    parser.add_argument("--threads", type=int, default=4, help="tgtd -t (4)")
    parser.add_argument("--allocated", action="store_true",
                        help="copy onto files whose blocks are allocated, not fresh ones")
    parser.add_argument("--bound", action="store_true",
                        help="measure a sender too that neither reads a file nor hashes")
    parser.add_argument("--tls", action="store_true",
                        help="measure through TLS, and nbdcopy to nbdkit as the peer")
    parser.add_argument("--min-ratio", type=float, default=0, help="fail below this ratio")
    parser.add_argument("--quiet-share", type=float, default=None, metavar="SHARE",
                        help="repeat a run while other processes used more than this share of "
                        "the CPUs, of either engine alike (at most 20 times as many runs)")
    parser.add_argument("--json", action="store_true", help="results as JSON")
    return parser.parse_args()


def find_program():
    folder = os.environ.get("FERRY_BIN", "build/dev/bin")
    program = os.path.join(folder, "bench_copy")
    needed = [program, "/usr/sbin/tgtd", "/usr/bin/qemu-img"]
    for path in needed:
        if not os.access(path, os.X_OK):
            print(f"skipped: {path} is missing", file=sys.stderr)
            sys.exit(SKIP)
    return program


def write_random(path, mib):
    with open(path, "wb") as out:
        for _ in range(mib):
            out.write(os.urandom(MIB))


def warm(folder, mib):
    path = os.path.join(folder, "warm")
    block = b"\1" * MIB
    with open(path, "wb") as out:
        for _ in range(mib):
            out.write(block)
    os.unlink(path)


def have_nbdkit():
    return all(shutil.which(name) for name in ("nbdcopy", "nbdkit"))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_listener(port):
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    sys.exit("nbdkit does not listen")


def same(one, other):
    with open(one, "rb") as a, open(other, "rb") as b:
        while block := a.read(MIB):
            if block != b.read(MIB):
                return False
    return True


def run_nbdkit(engine, folder, args):
    """nbdcopy to nbdkit: another process at each side, TLS with a shared key."""
    warm(folder, args.size)
    source, dest = (os.path.join(folder, name) for name in ("source", "dest"))
    keys = os.path.join(folder, "keys")
    with open(keys, "w", encoding="ascii") as out:
        out.write(f"ferry:{os.urandom(32).hex()}\n")
    with open(dest, "wb") as out:
        if args.allocated:
            for _ in range(args.size):
                out.write(b"\x5a" * MIB)
        out.truncate(args.size * MIB)
    port = free_port()
    in_tls = engine.endswith("-tls")
    server = ["nbdkit", "--foreground", "--ipaddr=127.0.0.1", f"--port={port}",
              *(["--tls=require", f"--tls-psk={keys}"] if in_tls else []), "file", dest]
    url = (f"nbds://ferry@127.0.0.1:{port}?tls-psk-file={keys}" if in_tls
           else f"nbd://127.0.0.1:{port}")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(server) as nbdkit:
        try:
            await_listener(port)
            start = time.monotonic()
            subprocess.run(["nbdcopy", "--connections=4", source, url], check=True)
            seconds = time.monotonic() - start
        finally:
            nbdkit.terminate()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if not same(source, dest):
        sys.exit(f"{engine}: content differs")
    os.unlink(dest)
    used = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return {"engine": engine, "seconds": seconds, "mib_per_sec": args.size / seconds,
            "cpu_seconds": used, "target_cpu_seconds": 0, "others_cpu_seconds": 0}


def run(program, engine, folder, args):
    if engine.startswith("nbdcopy"):
        return run_nbdkit(engine, folder, args)
    warm(folder, args.size)
    command = [program, "--threads", str(args.threads)]
    command += ["--allocated"] if args.allocated else []
    command += [engine, os.path.join(folder, "source"), os.path.join(folder, "dest")]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(f"{engine} failed")
    return json.loads(done.stdout)


def is_quiet(result, args):
    if args.quiet_share is None:
        return True
    available = result["seconds"] * os.cpu_count()
    return result["others_cpu_seconds"] <= args.quiet_share * available


def run_quietly(program, engine, folder, args, discarded):
    while True:
        result = run(program, engine, folder, args)
        if is_quiet(result, args):
            return result
        discarded.append(result)
        if len(discarded) > 20 * args.rounds:
            sys.exit("the machine is never quiet enough for --quiet-share")


def measure(program, args, discarded):
    results = {"ferry": [], "qemu-img": []}
    if args.bound:
        results["bound"] = []
        if args.tls:
            results["bound-tls"] = []
    if args.tls:
        results["ferry-tls"] = []
        if have_nbdkit():
            results.update({"nbdcopy": [], "nbdcopy-tls": []})
    folder = tempfile.mkdtemp(prefix="ferry-bench-", dir=args.dir)
    try:
        write_random(os.path.join(folder, "source"), args.size)
        for i in range(args.rounds):
            for engine in sorted(results, reverse=bool(i % 2)):
                results[engine].append(run_quietly(program, engine, folder, args, discarded))
    finally:
        shutil.rmtree(folder)
    return results


def summarize(runs):
    speeds = [r["mib_per_sec"] for r in runs]
    return {"median_mib_per_sec": round(statistics.median(speeds)),
            "min_mib_per_sec": round(min(speeds)), "max_mib_per_sec": round(max(speeds)),
            "median_cpu_seconds": round(statistics.median(r["cpu_seconds"] for r in runs), 2),
            "median_target_cpu_seconds": round(
                statistics.median(r["target_cpu_seconds"] for r in runs), 2),
            "rounds": len(speeds)}


def tls_ratios(summary):
    pairs = [("ferry-tls", "ferry"), ("ferry", "nbdcopy"), ("ferry-tls", "nbdcopy-tls")]
    return {f"{a} to {b}": round(summary[a]["median_mib_per_sec"] /
                                 summary[b]["median_mib_per_sec"], 2)
            for a, b in pairs if b in summary}


def main():
    args = parse()
    discarded = []
    results = measure(find_program(), args, discarded)
    summary = {engine: summarize(runs) for engine, runs in results.items()}
    ferry, other = summary["ferry"], summary["qemu-img"]
    ferry["peak_rss_kib"] = max(r["peak_rss_kib"] for r in results["ferry"])
    summary["load_average"] = os.getloadavg()[0]
    summary["runs_discarded"] = len(discarded)
    if args.bound:
        bound = summary["bound"]["median_mib_per_sec"]
        summary["bound_ratio"] = round(bound / other["median_mib_per_sec"], 2)
    if args.tls:
        summary["tls_ratios"] = tls_ratios(summary)
    summary["ratio"] = round(ferry["median_mib_per_sec"] / other["median_mib_per_sec"], 2)
    if args.json:
        print(json.dumps({"size_mib": args.size, "allocated": args.allocated,
                          "threads": args.threads, **summary}, indent=2))
    else:
        kind = "allocated" if args.allocated else "fresh"
        print(f"{args.size} MiB of random data into {kind} exports, {args.rounds} rounds")
        print(f"{'':12} {'median':>8} {'min':>8} {'max':>8} MiB/s {'CPU':>8} {'tgtd CPU':>10} s")
        for engine in results:
            s = summary[engine]
            print(f"{engine:12} {s['median_mib_per_sec']:8} {s['min_mib_per_sec']:8} "
                  f"{s['max_mib_per_sec']:8}       {s['median_cpu_seconds']:8} "
                  f"{s['median_target_cpu_seconds']:10}")
        print(f"ratio {summary['ratio']}, contents equal, Ferry's peak RSS "
              f"{ferry['peak_rss_kib'] / 1024:.1f} MiB, load average "
              f"{summary['load_average']:.1f}, {len(discarded)} runs discarded as disturbed")
        for name, ratio in summary.get("tls_ratios", {}).items():
            print(f"{name}: {ratio}")
        if args.bound:
            print(f"a sender that only sends: {summary['bound_ratio']} times qemu-img")
    return 1 if summary["ratio"] < args.min_ratio else 0


if __name__ == "__main__":
    sys.exit(main())
