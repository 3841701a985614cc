#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The model of a migration (docs/model/migration.pml): its laws hold, they can be broken, and its
rows are those of the C table. Part of the laws is checked by default, all at once with FERRY_LONG."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = os.environ.get("FERRY_SOURCE", os.getcwd())
MODEL = os.path.join(SOURCE, "docs/model/migration.pml")
STATES = os.path.join(SOURCE, "docs/states.md")
LONG = bool(os.environ.get("FERRY_LONG"))

MEMORY_MIB = 4096 if LONG else 1280
DEPTH = 300_000
SECONDS = 3000 if LONG else 240

# What is searched whole: everything that can go wrong, in any number and order, within the options.
CONFIGURATIONS = {
    "a halted VM": ["-DHALTED"],
    "late and repeated requests": ["-DFAULTS=0"],
    "QEMU dies": ["-DFAULTS=12", "-DMAX_LATE=0"],
    "stores fail, the watchdog dies": ["-DFAULTS=17", "-DMAX_LATE=0"],
    "cancels on both sides, and an operator who says what is true":
        ["-DFAULTS=2", "-DMAX_LATE=0", "-DRESOLVE=1"],
    "a halted VM, and that operator": ["-DHALTED", "-DFAULTS=2", "-DMAX_LATE=1", "-DRESOLVE=1"],
}
LONG_CONFIGURATIONS = {"everything": ["-DRESOLVE=1"]}

# What is broken, the law that must not hold then (0: LIVENESS), and the name of the law.
MUTATIONS = [
    (1, 1, "a cancel is honoured after the commit was asked for"),
    (2, 1, "a sender resumes its guest when the commit is not answered"),
    (3, 1, "the commit is asked for before that is stored"),
    (4, 1, "QEMU at the destination is started without -S"),
    (5, 1, "a failed commit is called aborted without a record"),
    (6, 1, "the watchdog acts after the guest has been handed over"),
    (7, 3, "the last round is left out"),
    (8, 4, "there is no watchdog"),
    (9, 5, "an abort is not told"),
    (10, 5, "the guest is told to run after COMMITTED is stored, and once only"),
    (11, 0, "the sender gives the guest back at the switch as often as it likes"),
]


class Search:
    """One run of spin: verdict ("holds", "broken" or "unfinished"), rows that no run took."""

    def __init__(self, *options, liveness=False):
        with tempfile.TemporaryDirectory(prefix="ferry-model-") as folder:
            self.folder = folder
            self.output = self.run(list(options), liveness)
        self.states = int(re.search(r"(\d+) states, stored", self.output).group(1))
        self.untaken = self.find_untaken()
        errors = int(re.search(r"errors: (\d+)", self.output).group(1))
        is_whole = not re.search(r"not completed|max search depth|out of memory", self.output)
        self.verdict = "broken" if errors else "holds" if is_whole else "unfinished"

    def call(self, *argv):
        done = subprocess.run(argv, cwd=self.folder, timeout=SECONDS, text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise AssertionError(f"{' '.join(argv)}: {done.returncode}\n{done.stdout}")
        return done.stdout

    def run(self, options, liveness):
        self.call("spin", "-a", *options, *(["-DLIVENESS"] if liveness else []), MODEL)
        # No partial order reduction: it does not go with a rendezvous that interrupts (s_dies).
        # A short search takes less time than the optimizer.
        self.call("gcc", "-O2" if LONG else "-O0", "-w", "-DNOREDUCE", "-DNOFAIR", f"-DMEMLIM={MEMORY_MIB}",
                  *(["-DCOLLAPSE"] if LONG else []), *([] if liveness else ["-DSAFETY"]),
                  "-o", "pan", "pan.c")
        return self.call("./pan", f"-m{DEPTH}", "-w23", *(["-a"] if liveness else ["-E"]))

    def find_untaken(self):
        """Lines whose step into another state was never taken."""
        return {int(line) for line in re.findall(
            r'migration\.pml:(\d+), state \d+, "[sr]db = \d+"', self.output)}


def model_rows():
    """{(role, from, event, to): line} of the model; each is written once."""
    rows = {}
    with open(MODEL, encoding="utf-8") as model:
        for number, line in enumerate(model, 1):
            for side, words in re.findall(r"\b([SR])_POST\(([A-Z_, ]+)\)", line):
                row = ("sender" if side == "S" else "receiver", *words.split(", "))
                if row in rows:
                    raise AssertionError(f"line {number}: {row} is in line {rows[row]} too")
                rows[row] = number
    return rows


def table_rows():
    """The rows of agent/migrate/fsm.c, from the page that unit.fsm holds to the table."""
    with open(STATES, encoding="utf-8") as page:
        cells = [[cell.strip() for cell in line.split("|")[1:5]] for line in page]
    return {(role, state, event.upper().replace("-", "_"), to)
            for role, state, event, to in (row for row in cells if len(row) == 4)
            if role in ("sender", "receiver")}


class Laws(unittest.TestCase):
    def test_the_laws_hold_and_every_row_is_taken(self):
        rows = model_rows()
        untaken = set(rows.values())
        for name, options in {**CONFIGURATIONS, **(LONG_CONFIGURATIONS if LONG else {})}.items():
            with self.subTest(name):
                search = Search(*options)
                print(f"{search.states:>9} states: {name}", flush=True)
                self.assertEqual(search.verdict, "holds", search.output)
                untaken &= search.untaken
        self.assertEqual([row for row, line in rows.items() if line in untaken], [])


class Ends(unittest.TestCase):
    def test_every_migration_comes_to_its_end(self):
        for name, options in {"halted": ["-DHALTED", "-DMAX_LATE=0"],
                              "live": ["-DFAULTS=0", "-DMAX_LATE=0"]}.items():
            with self.subTest(name):
                search = Search(*options, liveness=True)
                print(f"{search.states:>9} states: comes to its end, {name}", flush=True)
                self.assertEqual(search.verdict, "holds", search.output)


class SelfTest(unittest.TestCase):
    def test_each_law_can_be_broken(self):
        for number, law, what in MUTATIONS:
            with self.subTest(what):
                options = [f"-DMUTATION={number}", f"-DONLY={law}", "-DFAULTS=0", "-DMAX_LATE=1"]
                search = Search(*options, liveness=law == 0)
                self.assertEqual(search.verdict, "broken", search.output)
                self.assertIn("assertion violated" if law else "acceptance cycle", search.output)


class Operator(unittest.TestCase):
    """What `ferry migration resolve` can do when it is used wrongly."""

    OPTIONS = ["-DFAULTS=0", "-DMAX_LATE=0"]

    def verdict(self, resolve, law):
        return Search(*self.OPTIONS, f"-DRESOLVE={resolve}", f"-DONLY={law}").verdict

    def test_aborted_said_wrongly_makes_two_runners(self):
        self.assertEqual(self.verdict(2, 1), "broken")

    def test_committed_said_wrongly_makes_no_two_runners_but_may_leave_none(self):
        self.assertEqual(self.verdict(3, 1), "holds")
        self.assertEqual(self.verdict(3, 5), "broken")


class Table(unittest.TestCase):
    def test_the_rows_are_those_of_the_table(self):
        model, table = set(model_rows()), table_rows()
        self.assertGreater(len(table), 30)
        self.assertEqual(sorted(table - model), [], "rows of agent/migrate/fsm.c that "
                         "docs/model/migration.pml lacks")
        self.assertEqual(sorted(model - table), [], "rows of docs/model/migration.pml that "
                         "agent/migrate/fsm.c lacks")


if __name__ == "__main__":
    if not shutil.which("spin"):
        print("skipped: spin is not installed (packaging/build-depends.txt)")
        sys.exit(77)
    unittest.main(verbosity=2)
