#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The part of ./demo that runs: two pools; a guest that is moved while it runs, a halted VM with real disks, the proofs.

Everything a user would do goes through `ferry`; the API is asked only to compare before and after.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from ferrytest import BIN, GIB, MIB, PASSWORD, Pool, allocated, digest, give, processes_naming
from live import live_demo
from report import Broken, check, say
from vmstate import different, vm_state

WORK = os.environ.get("TMPDIR") or "/var/tmp"
KEPT = os.path.join(WORK, f"ferry-demo.{os.geteuid()}.json")
SYSTEM_SIZE = 1280 * MIB
CONTENT = 768 * MIB
DATA_SIZE = 20 * GIB
DATA_WRITTEN = 6 * MIB
NEEDED = 4 * GIB


class Ferry:
    """The command line, with a configuration of its own that names both pools."""

    def __init__(self, folder):
        self.config = os.path.join(folder, "ferry.conf")

    def add(self, name, pool):
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with open(os.open(self.config, flags, 0o600), "a", encoding="utf-8") as file:
            file.write(f"[server {name}]\nurl = {pool.url}\nuser = root\npassword = {PASSWORD}\n\n")
        self.run("trust", name, "--fingerprint", pool.fingerprint())

    def run(self, *args, **kwargs):
        return subprocess.run([os.path.join(BIN, "ferry"), "--config", self.config, *args],
                              check=True, text=True, **kwargs)


def gather(folder):
    """Real files of this machine, up to CONTENT bytes: what a guest's system disk is made of."""
    total = 0
    for top in ("/usr/lib", "/usr/share", "/usr/bin"):
        for parent, _, names in os.walk(top):
            target = os.path.join(folder, parent.lstrip("/"))
            os.makedirs(target, exist_ok=True)
            for name in names:
                source = os.path.join(parent, name)
                if not os.access(source, os.R_OK) or not os.path.isfile(source):
                    continue
                if not os.path.islink(source):
                    total += os.path.getsize(source)
                shutil.copy(source, target, follow_symlinks=False)
            if total >= CONTENT:
                return total
    return total


def make_system_image(path):
    with tempfile.TemporaryDirectory(prefix="f.content.", dir=WORK) as folder:
        total = gather(folder)
        subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-d", folder, path,
                        f"{SYSTEM_SIZE // MIB}M"], check=True, stdout=subprocess.DEVNULL)
    give(path)
    return total


def make_data_image(path):
    """Sparse, with something at its beginning, in its middle and at its very end."""
    with open(path, "wb") as file:
        file.truncate(DATA_SIZE)
        piece = DATA_WRITTEN // 3
        for offset in (0, DATA_SIZE // 2 + 4096, DATA_SIZE - piece):
            file.seek(offset)
            file.write(os.urandom(piece))
    give(path)


def make_vm(ferry, a, repository):
    """Drops the images into A's repository, takes them in, and makes a VM of them."""
    total = make_system_image(os.path.join(repository, "system.img"))
    make_data_image(os.path.join(repository, "data.img"))
    ferry.run("sr", "scan", "local", "--server", "A", stdout=subprocess.DEVNULL)
    made = ferry.run("vm", "create", "web server", "--disk", "system.img", "--disk", "data.img",
                     "--network", "guests", "--server", "A", stdout=subprocess.PIPE)
    vm = a.session.VM.get_by_uuid(made.stdout.strip())
    say(f"VM \"web server\" in pool A: an ext4 disk of {SYSTEM_SIZE // MIB} MiB with {total // MIB} MiB "
        f"of this machine's files, a sparse disk of {DATA_SIZE // GIB} GiB with "
        f"{DATA_WRITTEN // MIB} MiB written, one network card")
    return vm


def prove(a, b, before, files, facts):
    uuid = before["VM"]["uuid"]
    arrived = b.vm_by_uuid(uuid)
    check("the VM is in pool B, with its uuid", arrived is not None, uuid)
    after = vm_state(b, arrived)
    lines = different(before, after)
    check("name, every other field, MAC address and disk records are the same", not lines,
          "; ".join(lines) or after["VIFs"][0]["MAC"])
    paths = [b.vdi_path(vdi) for vdi in b.disks_of(arrived)]
    for path, wanted in zip(paths, before["digests"]):
        check("SHA-256 of the disk's content is the same", digest(path) == wanted, wanted[:16] + "...")
    done = subprocess.run(["/sbin/e2fsck", "-f", "-n", paths[0]], check=False, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    verdict = [line.split(": ")[-1] for line in done.stdout.splitlines() if " files (" in line]
    check("e2fsck -f -n finds nothing", done.returncode == 0, (verdict or [done.stdout])[0])
    for fact, path in zip(facts, paths):
        fact["arrived"] = allocated(path)
        check("allocated at the destination is at most 1.02 times the source's",
              fact["arrived"] <= 1.02 * fact["allocated"], f"{fact['arrived']} of {fact['allocated']}")
    check("the VM is gone from pool A", a.vm_by_uuid(uuid) is None)
    check("its files are gone from pool A", not any(os.path.exists(file) for file in files))
    a.wait_for_no_leftovers()
    b.wait_for_no_leftovers()
    check("no process, file or VDI is left over in either pool", True)


def print_table(facts, seconds):
    """One line for each disk and one for all; rates are of what was sent."""
    say()
    say(f"{'disk':<12}{'virtual':>14}{'allocated':>14}{'arrived':>14}{'sent':>14}{'s':>8}{'MiB/s':>9}")
    total = {key: sum(fact[key] for fact in facts)
             for key in ("virtual", "allocated", "arrived", "sent")}
    for fact in facts + [{"name": "all", "seconds": seconds, **total}]:
        rate = fact["sent"] / MIB / max(fact["seconds"], 0.001)
        say(f"{fact['name']:<12}{fact['virtual']:>14}{fact['allocated']:>14}{fact['arrived']:>14}"
            f"{fact['sent']:>14}{fact['seconds']:>8.2f}{rate:>9.1f}")


def add_figures(a, uuid, facts):
    """What the sender counted, per disk."""
    record, = (record for record in a.session.migration.get_all_records().values()
               if record["vm_uuid"] == uuid)
    for number, fact in enumerate(facts):
        figures = json.loads(record["disks"][str(number)])
        fact["sent"], fact["seconds"] = figures["sent"], figures["seconds"]


def prepare(a, b, folder):
    """The command line, knowing both pools; each has a repository "local" and a network "guests"."""
    ferry = Ferry(folder)
    ferry.add("A", a)
    ferry.add("B", b)
    for name, pool in (("A", a), ("B", b)):
        repository = pool.path("sr", "local")
        os.mkdir(repository, 0o750)
        give(repository)
        ferry.run("sr", "create", "local", repository, "--server", name, stdout=subprocess.DEVNULL)
        ferry.run("network", "create", "guests", "--server", name, stdout=subprocess.DEVNULL)
    return ferry


def cold_demo(ferry, a, b):
    vm = make_vm(ferry, a, a.path("sr", "local"))
    before = vm_state(a, vm)
    files = [a.vdi_path(vdi) for vdi in a.disks_of(vm)]
    facts = [{"name": os.path.basename(file), "virtual": os.path.getsize(file),
              "allocated": allocated(file)} for file in files]
    command = ["vm", "migrate", "web server", "--server", "A", "--to", "B", "--sr", "local",
               "--network", "guests"]
    say(f"$ ferry {shlex.join(command)}")
    begun = time.monotonic()
    ferry.run(*command)
    seconds = time.monotonic() - begun
    add_figures(a, before["VM"]["uuid"], facts)
    say("proof:")
    prove(a, b, before, files, facts)
    print_table(facts, seconds)


def keep(pools, folder):
    with open(KEPT, "w", encoding="utf-8") as file:
        json.dump({"folder": folder, "pools": [
            {"root": pool.root, "pid": pool.process.pid} for pool in pools]}, file)
    say()
    for name, pool in zip("AB", pools):
        say(f"pool {name}: {pool.url}, user root, log {pool.path('log')}")
    say(f"password file (and configuration of ferry): {folder}/ferry.conf")
    say(f"try: {os.path.join(BIN, 'ferry')} --config {folder}/ferry.conf vm list --server B")
    say("stop both: ./demo --stop")


def stop():
    """Ends the pools that --keep left, and only those."""
    if not os.path.exists(KEPT):
        say("no demo is running")
        return 0
    with open(KEPT, encoding="utf-8") as file:
        kept = json.load(file)
    for pool in kept["pools"]:
        if pool["pid"] in processes_naming(pool["root"]):
            os.kill(pool["pid"], signal.SIGTERM)
    deadline = time.monotonic() + 15
    while any(processes_naming(pool["root"]) for pool in kept["pools"]):
        if time.monotonic() > deadline:
            say("a pool did not stop within 15 s: " + str(kept["pools"]))
            return 1
        time.sleep(0.1)
    for path in [kept["folder"], *(pool["root"] for pool in kept["pools"])]:
        shutil.rmtree(path, ignore_errors=True)
    os.unlink(KEPT)
    say("both pools are stopped and removed")
    return 0


def main(args):
    if args == ["--stop"]:
        return stop()
    if os.path.exists(KEPT):
        say(f"a demo is kept running ({KEPT}): ./demo --stop ends it")
        return 1
    if shutil.disk_usage(WORK).free < NEEDED:
        say(f"{WORK} has less than {NEEDED // GIB} GiB free: set TMPDIR to a folder that has")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = tempfile.mkdtemp(prefix="f.demo.", dir=WORK)
    pools = []
    kept = False
    try:
        for name in "AB":
            pools.append(Pool(name, parent=WORK, detached=args == ["--keep"],
                              ferryd_log_level="info"))
            pools[-1].start()
        say(f"pool A at {pools[0].url}, pool B at {pools[1].url}")
        ferry = prepare(*pools, folder)
        live_demo(ferry, *pools)
        cold_demo(ferry, *pools)
        if args == ["--keep"]:
            keep(pools, folder)
            kept = True
        return 0
    except (Broken, AssertionError, subprocess.CalledProcessError, RuntimeError, TimeoutError,
            unittest.SkipTest) as error:
        for pool in pools:
            pool.show_log()
        say(f"demo: FAILED: {error}")
        return 1
    except KeyboardInterrupt:
        say("demo: interrupted")
        return 130
    finally:
        if not kept:
            with contextlib.ExitStack() as cleanup:
                cleanup.callback(shutil.rmtree, folder)
                for pool in pools:
                    cleanup.callback(pool.remove)
                    cleanup.callback(pool.stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
