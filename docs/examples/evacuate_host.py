#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Empties a host of a pool: disables it, and moves its guests to the other hosts that reach their disks."""

import argparse
import signal
import sys
import time

import ferryscript
from ferryscript import CANCELLED, DONE, FAILED, Failure


def work(options):
    session = ferryscript.login(options)
    interrupts = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupts.append(True))
    try:
        host = ferryscript.find(session, "host", options.host)
        stays = session.host.get_vms_which_prevent_evacuation(host)
        for vm, why in stays.items():
            print(f"{session.VM.get_name_label(vm)} cannot leave: {Failure(why)}", file=sys.stderr)
        if stays or options.check:
            return FAILED if stays else DONE
        task = session.Async.host.evacuate(host)
        is_cancelled = False
        while session.task.get_status(task) == "pending":
            if interrupts and not is_cancelled:
                session.task.cancel(task)
                is_cancelled = True
            time.sleep(0.3)
        record = session.task.get_record(task)
        for key, text in sorted(record["other_config"].items()):
            if key.startswith("ferry:vm:"):
                print(f"{session.VM.get_name_label(session.VM.get_by_uuid(key[9:]))}: {text}")
        session.task.destroy(task)
        if record["status"] == "failure":
            raise Failure(record["error_info"])
        return DONE if record["status"] == "success" else CANCELLED
    finally:
        session.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    ferryscript.add_server(parser)
    parser.add_argument("--check", action="store_true", help="only say which VMs could not leave")
    parser.add_argument("host", help="its uuid or name")
    ferryscript.main(work, parser.parse_args())
