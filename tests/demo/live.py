# SPDX-License-Identifier: Apache-2.0
"""The live part of ./demo: a guest boots, writes and beats, is moved while it does, and everything is counted afterwards."""

import os
import shlex
import tempfile
import time

from ferrytest import MIB
from liveguest import LiveGuest, check_file_system, verify_files, verify_image
from report import check, say

NAME = "shop"
RECORDS_PER_SECOND = 200
DISKS = [(160 * MIB, f"seq:{RECORDS_PER_SECOND}"), (64 * MIB, "ext4:30")]


def sr_of(pool):
    return pool.session.SR.get_by_name_label("local")[0]


def network_of(pool):
    return pool.session.network.get_by_name_label("guests")[0]


def beats(guest, seconds):
    """Shows so many heartbeats."""
    for _ in range(seconds):
        status = guest.next_status()
        records, files = status["disks"]
        say(f"  pool {guest.pool.name}: heartbeat at {status['ms'] / 1000:.1f} s of the guest's life: {records['writes']} records, "
            f"{files['writes']} files written, slowest write {records['recent_us'] / 1000:.1f} ms")


def boot(ferry, a, b):
    guest = LiveGuest(a, NAME, DISKS, pools=[a, b], sr=sr_of(a), networks=[network_of(a)])
    begun = time.monotonic()
    ferry.run("vm", "start", NAME, "--server", "A")
    guest.console.wait_for_event("ready")
    say(f"VM \"{NAME}\" runs in pool A, its Linux booted in {time.monotonic() - begun:.1f} s: it writes {RECORDS_PER_SECOND} "
        f"numbered records a second to one disk, and files to an ext4 file system on another")
    return guest


def prove_it_runs(a, guest, uuid):
    check("the VM runs in pool B, with its uuid", guest.vm is not None and guest.state() == "Running", uuid)
    check("it is gone from pool A", a.vm_by_uuid(uuid) is None)
    answer = guest.verify_inside()
    records = answer["disks"][0]
    check("the guest saw no I/O error, and every block that it read back was the one that it wrote",
          not guest.console.complaints(), f"{records['reads'] + records['scanned']} blocks of the first disk")


def prove_disks(ferry, b, guest):
    ferry.run("vm", "shutdown", NAME, "--server", "B")
    ended = guest.console.wait_for_event("poweroff", command="button")
    records, files = ended["disks"]
    paths = guest.disk_paths()
    found = verify_image("table", paths[0], records["disk"], records["hash"])
    last = records["sequence"]
    check("no record is lost, and the sequence has no gap", found["records"] == found["last"] == last,
          f"records 1 to {last}, each byte compared")
    check("e2fsck -f -n finds nothing on the ext4 disk", True, check_file_system(paths[1]).split(": ")[-1])
    with tempfile.TemporaryDirectory(prefix="files.", dir=b.root) as folder:
        found = verify_files(paths[1], files, folder)
    check("every file on it has the content that was written last", True, f"{found['records']} blocks in files")


def live_demo(ferry, a, b):
    """The guest stays in pool B, shut down."""
    with boot(ferry, a, b) as guest:
        uuid = guest.uuid
        beats(guest, 3)
        command = ["vm", "migrate", NAME, "--server", "A", "--to", "B", "--sr", "local", "--network", "guests"]
        say(f"$ ferry {shlex.join(command)}")
        begun = time.monotonic()
        ferry.run(*command)
        seconds = time.monotonic() - begun
        guest.now_in(b)
        guest.console.wait_for_tick(b)
        beats(guest, 3)
        say("proof:")
        prove_it_runs(a, guest, uuid)
        pause = guest.console.pause(begun)
        record = next(record for record in a.session.migration.get_all_records().values()
                      if record["vm_uuid"] == uuid)
        told = float(record["pause"]["total"])
        check("the guest's heartbeat stood still for less than a second", pause < 1.0,
              f"{pause * 1000:.0f} ms seen on its console, which beats every 10 ms; {told:.0f} ms by Ferry's own record")
        prove_disks(ferry, b, guest)
        a.wait_for_no_leftovers()
        b.wait_for_no_leftovers()
        check("no process, file or VDI is left over in either pool", not os.path.exists(guest.console.path(a)))
        say(f"moved in {seconds:.1f} s while it ran: {int(record['bytes_sent']) / MIB:.0f} MiB of disks, "
            f"{int(record['memory_sent']) / MIB:.0f} MiB of memory; the pause in ms: "
            + ", ".join(f"{name} {value}" for name, value in record["pause"].items()))
        say()
