#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each fault point is met in a move, of a halted VM and of a guest that runs: the process dies there, the call fails, the
thread hangs. Afterwards exactly one pool has the VM (and runs it), its disks are right, nothing is left of the move on
either side, and it ended, or went on, by itself.

A part by default; FERRY_LONG=1: all cases. FERRY_SWEEP=REGEX: those that it matches, of all. FERRY_PART=1/2: each second one.
"""

import contextlib
import os
import re
import sys
import time
import traceback
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from faultpools import ColdPools, LivePools  # noqa: E402
from faultsweep import (DESTINATION, SOURCE, Sweep, database_cases, peer_cases, qmp_cases, row_cases,  # noqa: E402
                        storage_cases)
from ferrytest import wait_for  # noqa: E402

SELECTED = os.environ.get("FERRY_SWEEP")
ALL = bool(SELECTED or os.environ.get("FERRY_LONG"))
PART, PARTS = map(int, os.environ.get("FERRY_PART", "1/1").split("/"))
DATABASE_POINTS = [f"db.{name}.{step}" for name in ("agent", "pool") for step in ("begin", "commit", "step")]


class Cases(Sweep):
    def setUp(self):
        super().setUp()
        self.results = []

    def try_case(self, number, total, case):
        """None, or what was wrong."""
        begun = time.monotonic()
        try:
            outcome = self.run_case(case)
            failure = None
        except Exception as error:  # all cases are tried
            outcome, failure = "FAILED", f"{case}: {error}"
            traceback.print_exc()
            self.a.show_log(150)
            self.b.show_log(150)
        print(f"{number}/{total} {case}: {outcome}, {time.monotonic() - begun:.1f} s", flush=True)
        self.results.append((case, outcome))
        if failure:
            for pool in (self.a, self.b):
                with contextlib.suppress(Exception):
                    pool.kill()
            self.make_pools()
        return failure

    def sweep(self, cases):
        if SELECTED:
            cases = [case for case in cases if re.search(SELECTED, str(case))]
        cases = cases[PART - 1::PARTS]
        failures = [failure for number, case in enumerate(cases, 1)
                    if (failure := self.try_case(number, len(cases), case))]
        self.print_results()
        self.assertEqual(failures, [])

    def print_results(self):
        """A line of Markdown for each group and fault."""
        table = {}
        for case, outcome in self.results:
            counts = table.setdefault((case.group, case.what), {"moved": 0, "stayed": 0, "FAILED": 0})
            counts[outcome] += 1
        for (group, what), counts in table.items():
            print(f"| {'live' if self.live else 'halted'} | {group} | {what} | {sum(counts.values())} | {counts['moved']} | "
                  f"{counts['stayed']} | {counts['FAILED']} |", flush=True)

    def count_passes(self):
        """How often a move without a fault passes each point of the databases, by side."""
        for pool in (self.a, self.b):
            for point in DATABASE_POINTS:
                pool.points.arm(point, "error EIO after=1000000000")
        self.find_direction()
        self.begin_move({})
        wait_for("the move is done", lambda: self.settled() and self.source_pool() is self.destination, 60)
        passes = {(side, point): pool.points.passed(point) for point in DATABASE_POINTS
                  for side, pool in ((SOURCE, self.source), (DESTINATION, self.destination))}
        for pool in (self.a, self.b):
            pool.points.clear()
        return passes


class Cold(Cases, ColdPools):
    def test_rows_of_the_state_table(self):
        cases = row_cases(live=False)
        # Rows and faults in turn.
        self.sweep(cases if ALL else [case for number, case in enumerate(cases) if number % 11 == 0])

    def test_storage(self):
        cases = storage_cases(live=False)
        self.sweep(cases if ALL else [case for case in cases if case.point in ("iscsi.cut", "disk.remove")])

    if ALL:
        def test_calls_of_the_peer_protocol(self):
            self.sweep(peer_cases(live=False))

        def test_databases(self):
            self.sweep(database_cases(self.count_passes()))


class Live(Cases, LivePools):
    def test_rows_of_the_state_table(self):
        cases = row_cases(live=True)
        self.sweep(cases if ALL else [case for number, case in enumerate(cases) if number % 67 == 3])

    if ALL:
        def test_calls_of_the_peer_protocol(self):
            self.sweep(peer_cases(live=True))

        def test_storage(self):
            self.sweep(storage_cases(live=True))

        def test_qemus_monitor(self):
            self.sweep(qmp_cases())


if __name__ == "__main__":
    unittest.main(verbosity=2)
