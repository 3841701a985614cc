#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ferry's copier against qemu-img: random data into a fresh export of a tuned tgtd, interleaved.

Every run has a tgtd and a file of its own; its content is compared afterwards (bench_copy exits
with an error when it differs). Before each run as much memory as the copy needs is written to and
freed again, so that neither side pays for pages that a hypervisor has to fetch first.
"""
import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

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


def run(program, engine, folder, args):
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
    summary["ratio"] = round(ferry["median_mib_per_sec"] / other["median_mib_per_sec"], 2)
    if args.json:
        print(json.dumps({"size_mib": args.size, "allocated": args.allocated,
                          "threads": args.threads, **summary}, indent=2))
    else:
        kind = "allocated" if args.allocated else "fresh"
        print(f"{args.size} MiB of random data into {kind} exports, {args.rounds} rounds")
        print(f"{'':10} {'median':>8} {'min':>8} {'max':>8} MiB/s {'CPU':>8} {'tgtd CPU':>10} s")
        for engine in results:
            s = summary[engine]
            print(f"{engine:10} {s['median_mib_per_sec']:8} {s['min_mib_per_sec']:8} "
                  f"{s['max_mib_per_sec']:8}       {s['median_cpu_seconds']:8} "
                  f"{s['median_target_cpu_seconds']:10}")
        print(f"ratio {summary['ratio']}, contents equal, Ferry's peak RSS "
              f"{ferry['peak_rss_kib'] / 1024:.1f} MiB, load average "
              f"{summary['load_average']:.1f}, {len(discarded)} runs discarded as disturbed")
        if args.bound:
            print(f"a sender that only sends: {summary['bound_ratio']} times qemu-img")
    return 1 if summary["ratio"] < args.min_ratio else 0


if __name__ == "__main__":
    sys.exit(main())
