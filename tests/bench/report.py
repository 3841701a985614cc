# SPDX-License-Identifier: Apache-2.0
"""What was measured, for people: tables and a plot."""
import statistics
import subprocess

MIB, GIB = 1 << 20, 1 << 30


def median(runs, key):
    return statistics.median(run[key] for run in runs)


def summarize_engine(case, runs, first_seconds):
    moved = min(case["apparent_bytes"], case["source_allocated"])
    seconds = [run["seconds"] for run in runs]
    cpu = [run["cpu_seconds"] + run["target_cpu_seconds"] for run in runs]
    summary = {"median_seconds": statistics.median(seconds), "min_seconds": min(seconds),
               "max_seconds": max(seconds),
               "mib_per_sec": moved / MIB / statistics.median(seconds),
               "ratio": statistics.median(seconds) / first_seconds,
               "cpu_seconds_per_gib": statistics.median(cpu) * GIB / moved,
               "rss_mib": max(run["rss_kib"] for run in runs) / 1024,
               "target_rss_mib": max(run["target_rss_kib"] for run in runs) / 1024,
               "target_allocated_share": median(runs, "target_allocated") / moved}
    if "sent_bytes" in runs[0]:
        summary["sent_share"] = median(runs, "sent_bytes") / moved
    return {name: round(value, 3) for name, value in summary.items()}


def summarize(case):
    """The case with figures of each engine in place of its runs, and the runs' seconds."""
    runs = case.pop("runs")
    first = median(next(iter(runs.values())), "seconds")
    return {**case,
            "engines": {name: summarize_engine(case, each, first) for name, each in runs.items()},
            "seconds": {name: [round(run["seconds"], 3) for run in each]
                        for name, each in runs.items()}}


def table(case):
    first = next(iter(case["engines"]))
    disks = "1 disk" if case["disks"] == 1 else f"{case['disks']} disks at once"
    lines = [f"{case['data']}, {case['source_allocated'] / MIB:.0f} MiB of it allocated, "
             f"{disks}, onto {case['onto']} files on {case['file_system']}"
             + (f" ({case['discarded']} runs discarded as disturbed)" if case["discarded"] else ""),
             f"{'':12} {'MiB/s':>7} {'median s':>9} {'min':>7} {'max':>7} {'CPU s/GiB':>10} "
             f"{'RSS MiB':>8} {'target':>7}  {first} is"]
    for name, e in case["engines"].items():
        ratio = "" if name == first else f"{e['ratio']:.2f} x"
        lines.append(
            f"{name:12} {e['mib_per_sec']:7.0f} {e['median_seconds']:9.2f} {e['min_seconds']:7.2f} "
            f"{e['max_seconds']:7.2f} {e['cpu_seconds_per_gib']:10.2f} {e['rss_mib']:8.0f} "
            f"{e['target_rss_mib']:7.0f}  {ratio}")
    return "\n".join(lines) + "\n"


def plot(results, path):
    """MiB/s of every engine in every case, with the range from the slowest run to the fastest."""
    names = list(dict.fromkeys(name for case in results for name in case["engines"]))
    rows = []
    for case in results:
        label = (f"{case['data']}\\n{case['disks']} disk{'s' * (case['disks'] > 1)}\\n"
                 f"{case['file_system']}, {case['onto']}")
        moved = min(case["apparent_bytes"], case["source_allocated"]) / MIB
        row = [f'"{label}"']
        for name in names:
            e = case["engines"].get(name)
            row += ([f"{moved / e[key]:.0f}" for key in
                     ("median_seconds", "max_seconds", "min_seconds")] if e else ["NaN"] * 3)
        rows.append(" ".join(row))
    series = ", ".join(f"$data using {2 + 3 * i}:{3 + 3 * i}:{4 + 3 * i}:xtic(1) "
                       f'title "{name}"' for i, name in enumerate(names))
    script = "\n".join([
        "$data << END", *rows, "END",
        f"set terminal svg size {max(640, 170 * len(results) + 200)},480 font 'sans,11'",
        "set style data histograms", "set style histogram errorbars gap 2 lw 1",
        "set style fill solid 0.7", "set ylabel 'MiB/s'", "set yrange [0:*]", "set grid y",
        "set key outside top center horizontal", f"plot {series}", ""])
    with open(path, "wb") as out:
        subprocess.run(["gnuplot"], input=script.encode(), stdout=out, check=True)
