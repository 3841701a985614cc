#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ferry's copier beside what people use, in one run: every case with every engine, interleaved.

A case is a kind of data, a place for the files, and a number of disks that are copied at once. In
each round each engine copies once; the next round takes them in the opposite order. Every run has
processes and target files of its own; contents are compared afterwards, outside of the time that is
taken. Before each run as much memory as the copy needs is written to and freed again, so that no
engine pays for pages that a hypervisor has to fetch first.

Ratios are of medians of seconds: how many times faster the first engine is than another.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import datasets
import engines
import report

SKIP = 77
MIB = 1 << 20
PLAIN = ["ferry", "nbdcopy", "mirror", "qemu-img", "dd"]
IN_TLS = ["ferry-tls", "nbdcopy-tls"]
# These would write, or read, the whole TiB.
NOT_SPARSE = {"mirror", "dd", "bound", "bound-tls"}
NOT_A_COPY = {"bound", "bound-tls"}


def words(allowed):
    def parse(text):
        names = text.split(",")
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(
                    f"{name!r} is none of {', '.join(map(str, allowed))}")
        return names
    return parse


def counts(text):
    numbers = [int(word) for word in text.split(",")]
    if not all(1 <= number <= 32 for number in numbers):
        raise argparse.ArgumentTypeError("1 to 32 disks")
    return numbers


def folder(text):
    if not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no folder")
    return text


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--engines", type=words(list(engines.ENGINES)), default=PLAIN + IN_TLS,
                        help=f"of {','.join(engines.ENGINES)}; bound is a sender that neither reads "
                        "a file nor hashes; the ratios are the first one's (all but bound)")
    parser.add_argument("--data", type=words(list(datasets.DATASETS)), default=["random"],
                        help=f"of {','.join(datasets.DATASETS)} (random)")
    parser.add_argument("--disks", type=counts, default=[1], help="copied at once: 1,2,4 (1)")
    parser.add_argument("--size", type=int, default=2048, help="MiB, all disks together (2048)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (5)")
    parser.add_argument("--dir", action="append", type=folder,
                        help="where the files lie; again for one more (/dev/shm)")
    parser.add_argument("--threads", type=int, default=4, help="tgtd -t (4)")
    parser.add_argument("--allocated", action="store_true",
                        help="copy onto files whose blocks are allocated, not fresh ones")
    parser.add_argument("--min-ratio", type=float, default=0,
                        help="fail when the first engine is not so many times as fast as the second")
    parser.add_argument("--quiet-share", type=float, default=None, metavar="SHARE",
                        help="repeat a run while other processes used more than this share of "
                        "the CPUs, of any engine alike (at most 20 times as many runs)")
    parser.add_argument("--json", metavar="FILE", help="all that was measured; - for standard output")
    parser.add_argument("--plot", metavar="FILE", help="an SVG of it, by gnuplot")
    args = parser.parse_args()
    if args.rounds < 1 or args.size < max(args.disks):
        parser.error("at least one round, and one MiB for each disk")
    return args


def warm(folder, mib):
    path = os.path.join(folder, "warm")
    block = b"\1" * MIB
    with open(path, "wb") as out:
        for _ in range(mib):
            out.write(block)
    os.unlink(path)


def make_target(source, dest, allocated):
    """Bytes other than zero where it is allocated: the comparison must not be true by itself."""
    size = os.path.getsize(source)
    with open(dest, "wb") as out:
        if allocated:
            for _ in range(size // MIB):
                out.write(b"\x5a" * MIB)
        out.truncate(size)


def run_once(engine, pairs, args, folder):
    warm(folder, args.size)
    for source, dest in pairs:
        make_target(source, dest, args.allocated)
    try:
        result = engine.run(pairs, args)
        for source, dest in pairs:
            if engine.name not in NOT_A_COPY and not datasets.is_same(source, dest):
                raise engines.EngineError(f"{engine.name}: content differs")
        result["target_allocated"] = sum(os.stat(dest).st_blocks * 512 for _, dest in pairs)
        return result
    finally:
        for _, dest in pairs:
            os.unlink(dest)


class Quiet:
    """Repeats what was disturbed."""

    def __init__(self, args):
        self.share = args.quiet_share
        self.left = 20 * args.rounds
        self.discarded = 0

    def run(self, *what):
        while True:
            result = run_once(*what)
            available = result["seconds"] * os.cpu_count()
            if self.share is None or result["others_cpu_seconds"] <= self.share * available:
                return result
            self.discarded += 1
            if self.discarded > self.left:
                raise engines.EngineError("the machine is never quiet enough for --quiet-share")


def measure_case(case, chosen, args):
    """All rounds of one case: seconds, CPU and memory of every engine."""
    folder = tempfile.mkdtemp(prefix="ferry-bench-", dir=case["dir"])
    quiet = Quiet(args)
    try:
        sources = [os.path.join(folder, f"source{i}") for i in range(case["disks"])]
        for source in sources:
            datasets.DATASETS[case["data"]](source, args.size // case["disks"])
        pairs = [(source, source.replace("source", "target")) for source in sources]
        runs = {engine.name: [] for engine in chosen}
        for i in range(args.rounds):
            for engine in chosen[::-1] if i % 2 else chosen:
                runs[engine.name].append(quiet.run(engine, pairs, args, folder))
        return {**case, "runs": runs, "discarded": quiet.discarded,
                "apparent_bytes": sum(map(os.path.getsize, sources)),
                "source_allocated": sum(os.stat(s).st_blocks * 512 for s in sources)}
    finally:
        shutil.rmtree(folder)


def cases(args):
    for folder in args.dir or ["/dev/shm"]:
        kind = subprocess.run(["stat", "-f", "-c", "%T", folder], check=True, text=True,
                              stdout=subprocess.PIPE).stdout.strip()
        for data in args.data:
            for disks in args.disks:
                yield {"data": data, "dir": folder, "file_system": kind, "disks": disks,
                       "onto": "allocated" if args.allocated else "fresh"}


def main():
    args = parse()
    chosen = engines.find(args.engines)
    if not chosen:
        return SKIP
    results = []
    for case in cases(args):
        fit = [e for e in chosen if case["data"] != "sparse" or e.name not in NOT_SPARSE]
        try:
            results.append(report.summarize(measure_case(case, fit, args)))
        except engines.EngineError as error:
            print(f"copy.py: {error}", file=sys.stderr)
            return 1
        if args.json != "-":
            print(report.table(results[-1]), flush=True)
    if args.plot:
        report.plot(results, args.plot)
    if args.json:
        text = json.dumps({"rounds": args.rounds, "size_mib": args.size, "threads": args.threads,
                           "load_average": os.getloadavg()[0], "cases": results}, indent=2)
        if args.json == "-":
            print(text)
        else:
            with open(args.json, "w", encoding="utf-8") as out:
                out.write(text + "\n")
    worst = min((case["engines"][args.engines[1]]["ratio"] for case in results)
                if len(chosen) > 1 else [0])
    return 1 if worst < args.min_ratio else 0


if __name__ == "__main__":
    sys.exit(main())
