# SPDX-License-Identifier: Apache-2.0
"""The cases of the fault sweep: each is a move in which one fault point is met, and what must come of it.

The rows of the state table are read from docs/states.md, which a test compares with the table in the program: a row that
has no recipe here fails the sweep.
"""

import os
import re
import signal
import time

from ferrytest import wait_for
from livemove import ENDED, kill_all
from xensession import Failure

STATES = os.path.join(os.environ.get("FERRY_SOURCE", os.path.join(os.path.dirname(__file__), "..", "..")),
                      "docs", "states.md")
MOVED, STAYED, EITHER = "moved", "stayed", "moved or stayed"
SOURCE, DESTINATION = "source", "destination"


def rows():
    """(role, state, event) of each row of the state table."""
    with open(STATES, encoding="utf-8") as file:
        found = re.findall(r"^\| (sender|receiver) \| (\w+) \| ([\w-]+) \|", file.read(), re.MULTILINE)
    if len(found) < 40:
        raise AssertionError(f"{STATES}: {len(found)} rows; is it still the table?")
    return found


# --- How a move comes to a point ----------------------------------------------------------------------------------------

class Recipe:
    """Arms other points before the move begins, and does what is to be done until the point of the case is met. `x` is
    the sweep: x.source and x.destination are its pools."""

    ends = MOVED
    options = {}

    def arm(self, x):
        pass

    def act(self, x):
        pass


class Plain(Recipe):
    """Nothing else goes wrong."""


class Slow(Recipe):
    """Long enough for a heartbeat."""
    options = {"bandwidth": str(1 << 20)}


class Fails(Recipe):
    """The sender fails in this state."""
    ends = STAYED

    def __init__(self, state):
        self.state = state

    def arm(self, x):
        x.source.points.arm(f"sender.{self.state}", "error EIO")


class Cancelled(Recipe):
    """Held in this state of the sender, and cancelled at one side."""
    ends = STAYED

    def __init__(self, state, side=SOURCE):
        self.state, self.side = state, side

    def arm(self, x):
        x.source.points.arm(f"sender.{self.state}", "hang")

    def act(self, x):
        x.source.points.wait_for(f"sender.{self.state}")
        x.cancel(x.source if self.side == SOURCE else x.destination)
        x.wait_until_met(lambda: x.source.points.disarm(f"sender.{self.state}"))


class Refused(Recipe):
    """The destination cannot decide for the commit, and aborts."""
    ends = STAYED

    def arm(self, x):
        x.destination.points.arm("decide.committed.before", "error EIO")


class Interrupted(Recipe):
    """The exports are lost while the sender is about to do what the state is for."""

    def __init__(self, state):
        self.state = state

    def arm(self, x):
        x.source.points.arm(f"sender.{self.state}", "hang")

    def act(self, x):
        x.source.points.wait_for(f"sender.{self.state}")
        kill_all(x.destination.tgtds(), signal.SIGKILL)
        x.source.points.disarm(f"sender.{self.state}")


class Full(Recipe):
    """The destination cannot make the disks."""
    ends = STAYED

    def arm(self, x):
        x.destination.points.arm("disk.create", "error ENOSPC")


class Abandoned(Recipe):
    """The sender stands still in this state for longer than the destination waits."""
    ends = STAYED

    def arm(self, x):
        x.source.points.arm("sender.COPYING", "hang")

    def act(self, x):
        x.source.points.wait_for("sender.COPYING")
        x.freeze_source()
        x.wait_until_met(x.thaw_source)
        x.source.points.disarm("sender.COPYING")


class DiedInAllocating(Recipe):
    """The destination dies before it makes the disks, and comes back while the sender stands still."""
    ends = STAYED

    def __init__(self, cancels):
        self.cancels = cancels

    def arm(self, x):
        x.destination.points.arm("state.receiver.insert.after", "kill")

    def act(self, x):
        x.destination.killed(30)
        x.freeze_source()
        x.destination.start()
        if self.cancels:
            x.cancel(x.destination)
        x.wait_until_met(x.thaw_source)


def recipe_of(role, state, event):
    """How a move comes to this row of the table; None: there is none."""
    if role == "sender":
        if event == "cancel":
            return Cancelled(state)
        if event == "failed":
            return Fails(state)
        return {
            "refused": Refused(), "resumed": Interrupted("SWITCHING"),
            "undone": Fails("COPYING"), "undone-cancelled": Cancelled("COPYING"),
        }.get(event, Plain() if event in FORWARD else None)
    return {
        ("ALLOCATING", "cancel"): DiedInAllocating(cancels=True),
        ("ALLOCATING", "abandoned"): DiedInAllocating(cancels=False),
        ("ALLOCATING", "failed"): Full(),
        ("RECEIVING", "cancel"): Cancelled("COPYING", DESTINATION),
        ("RECEIVING", "failed"): Fails("COPYING"),
        ("RECEIVING", "abandoned"): Abandoned(),
        ("SEALED", "cancel"): Cancelled("COMMITTING", DESTINATION),
        ("SEALED", "failed"): Refused(),
        ("ABORTING", "undone"): Fails("COPYING"),
        ("ABORTING", "undone-cancelled"): Cancelled("COPYING", DESTINATION),
    }.get((state, event), Plain() if event in FORWARD else None)


FORWARD = ("started", "prepared", "copied", "bulk-copied", "stopped", "sealed", "sealed-paused", "handed-over",
           "committed", "finished")
ONLY_LIVE = {("sender", state, event) for state, event in (
    ("COPYING", "bulk-copied"), ("CONVERGING", "stopped"), ("SWITCHING", "resumed"), ("SWITCHING", "sealed-paused"),
    ("HANDOVER", "handed-over"), ("CONVERGING", "cancel"), ("CONVERGING", "failed"), ("HANDOVER", "cancel"),
    ("HANDOVER", "failed"))}
# An operator's word, after which disks may stay: tests/e2e/doubt.py.
BY_HAND = {("sender", "COMMITTING", "assumed-committed"), ("sender", "COMMITTING", "assumed-aborted")}
ONLY_COLD = {("sender", "COPYING", "copied"), ("sender", "SWITCHING", "sealed")}


# --- Cases --------------------------------------------------------------------------------------------------------------

class Case:
    """`rule`: of the fault point, on this side. `group`: a line of the result table."""

    def __init__(self, group, point, side, rule, recipe, ends=None):
        self.group, self.point, self.side, self.rule, self.recipe = group, point, side, rule, recipe
        self.ends = ends or recipe.ends
        self.what = rule.split()[0]

    def __str__(self):
        return f"{self.point} at the {self.side}: {self.rule}"

    def threshold(self):
        found = re.search(r"after=(\d+)", self.rule)
        return 1 + int(found[1]) if found else 1


def row_cases(live):
    """Before and after each row: the process dies, the state cannot be stored, the thread hangs."""
    cases = []
    for row in rows():
        if row in BY_HAND or row in (ONLY_COLD if live else ONLY_LIVE):
            continue
        recipe = recipe_of(*row)
        if recipe is None:
            raise AssertionError(f"the sweep does not know how a move comes to the row {row}: give it a recipe")
        role, state, event = row
        side = SOURCE if role == "sender" else DESTINATION
        for when, rule in (("before", "kill"), ("before", "error EIO"), ("before", "hang"), ("after", "kill"),
                           ("after", "hang")):
            point = f"state.{role}.{state}.{event}.{when}"
            cases.append(Case(f"row, {role}", point, side, rule, recipe, row_ends(row, when, live, rule, recipe)))
    for role, side in (("sender", SOURCE), ("receiver", DESTINATION)):
        for when in ("before", "after"):
            cases.append(Case(f"row, {role}", f"state.{role}.insert.{when}", side, "kill", Plain(),
                              STAYED if (role, when) == ("sender", "before") else MOVED))
        cases.append(Case(f"row, {role}", f"state.{role}.insert.before", side, "error EIO", Plain(), STAYED))
    for decision, recipe in (("committed", Plain()), ("aborted", Fails("COPYING"))):
        for when in ("before", "after"):
            for rule in ("kill", "hang"):
                cases.append(Case("decision", f"decide.{decision}.{when}", DESTINATION, rule, recipe,
                                  EITHER if live else None))
    cases.append(Case("decision", "decide.committed.before", DESTINATION, "error EIO", Plain(), STAYED))
    cases.append(Case("decision", "decide.aborted.before", DESTINATION, "error EIO", Fails("COPYING")))
    return cases


def row_ends(row, when, live, rule, recipe):
    """A cold move goes on by itself. So does a live one, unless its guest was at the switch: then it is given back."""
    role, state, event = row
    if role == "receiver" and rule.startswith("error") and event in ("prepared", "sealed", "committed"):
        # The receiver cannot vouch for it, and says no; the decision for the commit may be made by then.
        return MOVED if event == "committed" else STAYED
    if role == "sender" and event == "failed" and when == "before" and rule != "hang":
        # That it failed is not on record: it enters the state again, in which nothing goes wrong any more.
        return EITHER
    if live and event in ("stopped", "resumed", "sealed", "sealed-paused", "handed-over", "committed"):
        return EITHER
    return recipe.ends


VERBS = ("prepare", "digest", "seal", "commit", "finish", "abort", "renew", "status")
LIVE_VERBS = ("digest_extents", "incoming")


def verb_recipe(verb):
    return {"abort": Fails("COPYING"), "renew": Interrupted("COPYING"), "status": Slow()}.get(verb, Plain())


def peer_cases(live):
    """Each call of the peer protocol is lost, its answer is lost, one of both dies meanwhile, or stands still."""
    cases = []
    for verb in VERBS + (LIVE_VERBS if live else ()):
        recipe = verb_recipe(verb)
        # The first prepare is the dry run before the move.
        after = " after=1" if verb == "prepare" else ""
        for when in ("before", "after"):
            if (verb, when) == ("status", "after"):
                continue
            # So slow a move may not catch up with a guest that writes.
            calm = verb in ("finish", "abort", "renew") or (verb == "status" and not live)
            for rule in ("kill", "hang", "error ECONNRESET"):
                ends = EITHER if live and not calm and (rule == "kill" or verb == "status") else recipe.ends
                cases.append(Case("peer call", f"peer.call.{verb}.{when}", SOURCE, rule + after, recipe, ends))
            for rule in ("kill", "hang", "error EIO"):
                ends = EITHER if live and not calm else recipe.ends
                if rule == "error EIO" and verb in ("prepare", "digest", "seal", "digest_extents", "incoming", "renew"):
                    # What is compared behind the copy, which meets it when that is slow, is asked for again.
                    ends = EITHER if live and verb == "digest" else STAYED
                cases.append(Case("peer answer", f"peer.serve.{verb}.{when}", DESTINATION, rule + after, recipe, ends))
    return cases


def storage_cases(live):
    mib = 1 << 20
    cases = [Case("storage", point, side, rule, Plain(), ends) for point, side, rule, ends in (
        ("file.read", SOURCE, "error EIO", STAYED),
        ("file.read", SOURCE, f"error EIO after={2 * mib}", STAYED),
        ("file.read", SOURCE, f"delay 500 after={mib}", MOVED),
        ("file.read", DESTINATION, "error EIO", EITHER),
        ("iscsi.write", SOURCE, "error ENOSPC", STAYED),
        ("iscsi.write", SOURCE, f"error EIO after={2 * mib}", STAYED),
        ("iscsi.flush", SOURCE, "error EIO", STAYED),
        ("iscsi.cut", SOURCE, "error EIO", MOVED),
        ("iscsi.cut", SOURCE, f"error EIO after={mib}", MOVED),
        ("iscsi.cut", SOURCE, f"error EIO after={3 * mib}", MOVED),
        ("disk.create", DESTINATION, "error ENOSPC", STAYED),
        ("disk.create", DESTINATION, "error EIO after=1", STAYED),
        ("disk.create", DESTINATION, "kill after=1", MOVED),
        ("export.fsync", DESTINATION, "error EIO", STAYED),
        ("export.fsync", DESTINATION, "error EIO after=1", STAYED),
        ("disk.remove", SOURCE, "error EIO", MOVED),
        ("disk.remove", SOURCE, "error EIO after=1", MOVED),
        ("disk.remove", SOURCE, "kill", MOVED),
        ("tgt.mgmt", DESTINATION, "error EREMOTEIO", STAYED),
        ("tgt.mgmt", DESTINATION, "error EREMOTEIO after=4", STAYED),
        ("tgt.mgmt", DESTINATION, "error ETIMEDOUT after=2", STAYED),
        ("tgt.mgmt", DESTINATION, "hang after=3", EITHER),
        ("tgt.mgmt", DESTINATION, "kill after=5", EITHER if live else MOVED),
    )]
    cases += [Case("storage", "disk.remove", DESTINATION, rule, Fails("SWITCHING")) for rule in ("error EIO", "kill")]
    if live:
        cases += [Case("memory stream", "tunnel.cut", side, f"error EIO after={after}", Plain(), EITHER)
                  for side in (SOURCE, DESTINATION) for after in (0, 100_000, 5 * mib, 20 * mib)]
    return cases


def database_cases(passes):
    """passes: point -> how often a move passes it, by side. One failure each, spread over the move; a disk that is full,
    or a database that is held, for as long as a hang lasts."""
    cases = []
    for (side, point), n in sorted(passes.items()):
        if n == 0:
            continue
        # A move differs from the next by what it reports; the first passes are the test's own calls.
        spread = sorted({max(3, n * i // 8) for i in range(1, 7)})
        cases += [Case("database", point, side, f"error {error} after={after}", Plain(), EITHER)
                  for error, after in zip(("ENOSPC", "EIO", "EBUSY") * 2, spread)]
        cases.append(Case("database", point, side, f"kill after={n // 3}", Plain(), EITHER))
        if not point.endswith("step"):
            cases.append(Case("database", point, side, f"error ENOSPC after={n // 3} always", Plain(), EITHER))
    return cases


QMP_COMMANDS = ("block-dirty-bitmap-add", "transaction", "migrate-set-capabilities", "migrate-set-parameters", "migrate",
                "query-migrate", "migrate-continue", "block-dirty-bitmap-remove", "nbd-server-start", "block-export-add",
                "quit")


def qmp_cases():
    cases = []
    for command in QMP_COMMANDS:
        for when, rule in (("before", "error EREMOTEIO"), ("after", "error ETIMEDOUT"), ("before", "kill"),
                           ("after", "kill"), ("before", "delay 1000")):
            cases.append(Case("QMP", f"qmp.{command}.{when}", SOURCE, rule, Plain(), EITHER))
    for command in ("migrate-incoming", "cont"):
        for when, rule in (("before", "error EREMOTEIO"), ("before", "kill"), ("after", "kill")):
            cases.append(Case("QMP", f"qmp.{command}.{when}", DESTINATION, rule, Plain(), EITHER))
    return cases


# --- What happens in a case ---------------------------------------------------------------------------------------------

class Sweep:
    """Mixed into one of faultpools.py."""

    HANG = 1.5

    is_frozen = False

    # --- for recipes ---

    def cancel(self, pool):
        """The migration under way, at this pool. One that has no place for it says so."""
        def found():
            for ref, record in pool.session.migration.get_all_records().items():
                if record["state"] not in ENDED:
                    return ref
            return None
        ref = wait_for(f"a migration at {pool.name}", found, 20)
        try:
            pool.session.migration.cancel(ref)
        except (OSError, Failure):
            # It died of the cancel, which is what the case is about; the laws are checked all the same.
            if pool is self.pool and self.case.what == "kill":
                return
            raise

    def freeze_source(self):
        self.source.process.send_signal(signal.SIGSTOP)
        self.is_frozen = True

    def thaw_source(self):
        if self.is_frozen:
            self.source.process.send_signal(signal.SIGCONT)
        self.is_frozen = False

    def wait_until_met(self, then):
        """The point of the case; what it was met for is then undone, before whatever follows."""
        self.await_point()
        then()

    def await_point(self):
        self.pool.points.wait_for(self.case.point, 40, self.case.threshold())

    # --- one case ---

    def follow(self, case):
        """What the rule does to the daemon, and what an operator would: start it, end what hangs."""
        self.await_point()
        if case.what == "kill":
            self.pool.killed(20)
            self.pool.start()
        elif case.what == "hang" or "always" in case.rule:
            time.sleep(self.HANG)
            self.pool.points.disarm(case.point)

    def run_case(self, case):
        self.case = case
        self.find_direction()
        self.pool = self.source if case.side == SOURCE else self.destination
        case.recipe.arm(self)
        self.pool.points.arm(case.point, case.rule)
        begun = time.monotonic()
        self.begin_move(case.recipe.options)
        try:
            case.recipe.act(self)
            self.follow(case)
        finally:
            self.thaw_source()
            for pool in (self.a, self.b):
                pool.points.clear()
        outcome = self.assert_laws(begun)
        if case.ends != EITHER:
            self.assertEqual(outcome, case.ends, f"{case}: the VM {outcome}")
        return outcome
