#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""`ferry vm migrate` and `ferry task wait` against two servers that behave as a test wants."""

import json
import signal
import threading
import time
import unittest

from clitest import CliTest
from fakexapi import NULL

GIB = 1 << 30
FIGURES = {"ferry:migration": "0a0a0a0a-0000-4000-8000-000000000000",
           "ferry:state": "COPYING", "ferry:bytes_total": str(2 * GIB),
           "ferry:bytes_done": str(GIB), "ferry:bytes_sent": str(GIB // 2),
           "ferry:rate": str(100 << 20), "ferry:eta": "65"}


def disk(name, virtual, sent, seconds):
    return json.dumps({"vdi": "v", "name": name, "virtual": virtual, "allocated": virtual // 2,
                       "done": virtual, "sent": sent, "zero": 0, "hole": 0, "seconds": seconds})


class Migrate(CliTest):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.fake("a"), self.fake("b")
        self.vm = self.a.add_vm("web", ("system", 2 * GIB), ("data", 20 * GIB))
        self.arrived = self.b.add_vm("web")
        self.fast = self.b.add("SR", name_label="fast", type="file")
        self.started = threading.Event()
        self.a.on_migrate = self.finish

    def finish(self, task, status="success", error=()):
        self.a.end_task(task, status, f"<value>{self.arrived}</value>" if status == "success" else "",
                        error, **FIGURES, **{"ferry:disk:0": disk("system", 2 * GIB, GIB, 2.0),
                                             "ferry:disk:1": disk("data", 20 * GIB, 0, 0.0)})

    def hold(self, task):
        """A migration that shows its figures and goes on until the test ends it."""
        self.task = task
        self.a.change("task", task, progress=0.5, other_config=FIGURES)
        self.started.set()

    def migrate(self, *args):
        return ["--server", "a", "vm", "migrate", "web", "--to", "b", *args]

    def sent(self, method="Async.VM.migrate_send"):
        vm, dest, live, vdi_map, vif_map, options = self.a.arguments[method]
        return {"vm": vm, "dest": dest, "live": live, "vdi_map": vdi_map, "vif_map": vif_map,
                "options": options}

    def vdi(self, name):
        return next(ref for ref, record in self.a.objects["VDI"].items()
                    if record["name_label"] == name)

    def add_card(self, network, mac, device="0"):
        vif = self.a.add("VIF", VM=self.vm, network=network, MAC=mac, device=device)
        self.a.objects["VM"][self.vm]["VIFs"].append(vif)
        return vif

    # --- the plan ---

    def test_disks_go_to_the_default_sr_and_the_token_is_passed_unchanged(self):
        self.ferry(*self.migrate())
        sent = self.sent()
        self.assertEqual(sent, self.sent("VM.assert_can_migrate"), "what was checked is sent")
        self.assertEqual(sent["vdi_map"], {self.vdi("system"): self.b.sr, self.vdi("data"): self.b.sr})
        self.assertEqual((sent["vm"], sent["options"]), (self.vm, {}))
        self.assertEqual(sent["dest"]["host"], self.b.host)
        self.assertEqual(set(sent["dest"]), {"SM", "host", "xenops", "session_id", "master"})
        self.assertEqual(self.b.arguments["host.migrate_receive"], [self.b.host, self.b.network, {}])

    def test_a_map_sends_one_disk_elsewhere(self):
        self.ferry(*self.migrate("--sr", "local", "--map", "data=fast", "--copy",
                                 "--option", "force=true"))
        self.assertEqual(self.sent()["vdi_map"],
                         {self.vdi("system"): self.b.sr, self.vdi("data"): self.fast})
        self.assertEqual(self.sent()["options"], {"copy": "true", "force": "true"})

    def test_cds_are_not_mapped(self):
        vbd = self.a.add("VBD", VM=self.vm, VDI=NULL, userdevice="3", type="CD", mode="RO")
        self.a.objects["VM"][self.vm]["VBDs"].append(vbd)
        self.ferry(*self.migrate())
        self.assertEqual(len(self.sent()["vdi_map"]), 2)

    def test_mistakes_in_maps_are_found_before_anything_is_asked(self):
        self.add_card(self.a.network, "02:00:00:00:00:01")
        for args, code, text in [
                (["--map", "nonsense=fast"], 2, 'no disk "nonsense"'),
                (["--map", "data"], 2, "A=B"), (["--map", "=fast"], 2, "A=B"),
                (["--map", "data=fast", "--map", "data=local"], 2, "twice"),
                (["--map", "data=nonsense"], 1, 'no SR called "nonsense"'),
                (["--vif-map", "7=mgmt"], 2, 'no network card "7"'),
                (["--sr", "nonsense"], 1, 'no SR called "nonsense"'),
                (["--network", "nonsense"], 1, 'no network called "nonsense"'),
                (["--host", "nonsense"], 1, 'no host called "nonsense"'),
                (["--option", "copy"], 2, "A=B")]:
            with self.subTest(args=args):
                self.assertIn(text, self.refused(*self.migrate(*args), code=code))
        self.assertNotIn("host.migrate_receive", self.b.calls)

    def test_no_default_sr_asks_for_one(self):
        self.b.change("pool", self.b.pool, default_SR=NULL)
        self.assertIn("--sr SR", self.refused(*self.migrate()))

    def test_a_disabled_host_is_passed_over(self):
        self.b.change("host", self.b.host, enabled=False)
        self.assertIn("no enabled host", self.refused(*self.migrate()))

    def test_cards_go_to_the_network_of_the_same_name_or_say_where(self):
        guests = self.a.add("network", name_label="guests", bridge="")
        there = self.b.add("network", name_label="guests", bridge="")
        card = self.add_card(guests, "02:00:00:00:00:01")
        self.ferry(*self.migrate())
        self.assertEqual(self.sent()["vif_map"], {card: there})
        self.b.change("network", there, name_label="renamed")
        _, error = self.ferry(*self.migrate())
        self.assertEqual(self.sent()["vif_map"], {card: self.b.network})
        self.assertIn('no network "guests"; it will be on "mgmt"', error)
        for name in (self.a.uuid("VIF", card), "02:00:00:00:00:01", "0"):
            self.ferry(*self.migrate("--vif-map", f"{name}=renamed"))
            self.assertEqual(self.sent()["vif_map"], {card: there})
        self.ferry(*self.migrate("--network", "renamed"))
        self.assertEqual(self.sent()["vif_map"], {card: there})

    def test_a_dry_run_shows_the_plan_and_moves_nothing(self):
        self.add_card(self.a.network, "02:00:00:00:00:01")
        plan = json.loads(self.ferry("--json", *self.migrate("--dry-run"))[0])
        self.assertEqual([(d["name"], d["from_sr"], d["to_sr"], d["virtual"], d["allocated"])
                          for d in plan["disks"]],
                         [("system", "local", "local", 2 * GIB, GIB),
                          ("data", "local", "local", 20 * GIB, 10 * GIB)])
        self.assertEqual(plan["vifs"][0]["to_network"], "mgmt")
        out, _ = self.ferry(*self.migrate("--dry-run"))
        self.assertIn("20.0 GiB", out)
        self.assertIn("VM.assert_can_migrate", self.a.calls)
        self.assertNotIn("Async.VM.migrate_send", self.a.calls)

    def test_a_refusal_names_the_disk_and_what_to_do(self):
        self.a.refuse["VM.assert_can_migrate"] = ["VDI_NOT_IN_MAP", self.vdi("data")]
        error = self.refused(*self.migrate("--dry-run"))
        self.assertIn(f'"data" ({self.a.uuid("VDI", self.vdi("data"))})', error)
        self.assertIn("--map", error)
        self.assertNotIn("Async.VM.migrate_send", self.a.calls)

    # --- the end ---

    def test_the_result_has_a_line_a_disk_and_the_sum(self):
        out, error = self.ferry(*self.migrate())
        self.assertIn(self.b.uuid("VM", self.arrived), out)
        self.assertIn(FIGURES["ferry:migration"], out)
        table = [line.split() for line in out.splitlines()[-4:]]
        self.assertEqual(table[0], ["DISK", "VIRTUAL", "ALLOCATED", "SENT", "SECONDS", "MIB/S"])
        self.assertEqual(table[1], "system 2.0 GiB 1.0 GiB 1.0 GiB 2.0 512.0".split())
        self.assertEqual(table[2], "data 20.0 GiB 10.0 GiB 0 B 0.0 -".split())
        self.assertEqual(table[3][:3], ["all", "22.0", "GiB"])
        self.assertEqual(error, "", "no progress where there is no terminal")

    def test_the_result_as_json(self):
        result = json.loads(self.ferry("--json", *self.migrate())[0])
        self.assertEqual(set(result), {"vm", "name", "migration", "to", "seconds", "disks", "unreadable"})
        self.assertEqual(result["vm"], self.b.uuid("VM", self.arrived))
        self.assertEqual(result["disks"][0]["sent"], GIB)
        self.assertEqual(self.a.objects["task"], {}, "the task is destroyed, as clients do")

    def test_a_failure_is_told_and_is_exit_code_1(self):
        self.a.on_migrate = lambda task: self.finish(
            task, "failure", ["SR_BACKEND_FAILURE_44", "", "SR local has 5 bytes free", ""])
        error = self.refused(*self.migrate())
        self.assertIn("not enough space: SR local has 5 bytes free [SR_BACKEND_FAILURE_44]", error)

    def test_a_cancel_by_somebody_else_is_exit_code_3(self):
        self.a.on_migrate = lambda task: self.finish(task, "cancelled")
        self.assertIn("cancelled [TASK_CANCELLED]", self.refused(*self.migrate(), code=3))

    def test_no_wait_prints_the_task_which_can_be_waited_for(self):
        self.a.on_migrate = self.hold
        uuid = self.ferry(*self.migrate("--no-wait"))[0].strip()
        self.assertEqual(uuid, self.a.uuid("task", self.task))
        waiting = self.start("--server", "a", "task", "wait", uuid)
        self.finish(self.task)
        self.assertIn("success", waiting.communicate(timeout=30)[0])
        self.assertEqual(waiting.returncode, 0)
        other = self.a.add_task()
        self.finish(other, "failure", ["INTERNAL_ERROR", "the cause"])
        self.assertEqual(self.refused("--server", "a", "task", "wait", other),
                         "ferry: the cause [INTERNAL_ERROR]\n")

    # --- while it runs ---

    def test_a_terminal_shows_progress_and_takes_it_away(self):
        self.a.on_migrate = self.hold
        terminal = self.terminal(*self.migrate())
        terminal.wait_for("ETA 1:05")
        for text in ("50%", "1.0 GiB of 2.0 GiB", "100.0 MiB/s", "COPYING"):
            self.assertIn(text, terminal.seen)
        self.finish(self.task)
        code, out = terminal.end()
        self.assertEqual(code, 0)
        self.assertTrue(terminal.seen.endswith("\r\x1b[K"), terminal.seen)
        self.assertIn("DISK", out)

    def test_no_progress_line_when_it_is_not_wanted(self):
        self.a.on_migrate = self.hold
        terminal = self.terminal("--no-progress", *self.migrate())
        self.assertTrue(self.started.wait(30))
        self.finish(self.task)
        self.assertEqual(terminal.end()[0], 0)
        self.assertEqual(terminal.seen, "")

    def test_ctrl_c_cancels_and_waits_for_the_end(self):
        self.a.on_migrate = self.hold
        self.a.on_cancel = lambda task: threading.Timer(
            0.3, self.finish, (task, "cancelled")).start()
        terminal = self.terminal(*self.migrate())
        terminal.wait_for("COPYING")
        terminal.type("\x03")
        code, out = terminal.end()
        self.assertEqual((code, out), (3, ""), terminal.seen)
        self.assertIn("cancelling; Ctrl-C again leaves it running", terminal.seen)
        self.assertEqual(self.a.calls.count("task.cancel"), 1)

    def test_a_second_ctrl_c_leaves_it_running(self):
        self.a.on_migrate = self.hold
        terminal = self.terminal(*self.migrate())
        terminal.wait_for("COPYING")
        terminal.type("\x03")
        terminal.wait_for("cancelling")
        terminal.type("\x03")
        self.assertEqual(terminal.end()[0], 3)
        self.assertIn(f"ferry task wait {self.a.uuid('task', self.task)}", terminal.seen)
        self.assertIn(self.task, self.a.objects["task"])

    def test_a_cancel_that_comes_too_late_says_so_and_succeeds(self):
        self.a.on_migrate = self.hold
        self.a.on_cancel = self.finish
        process = self.start(*self.migrate())
        self.assertTrue(self.started.wait(30))
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0, error)
        self.assertIn("too late", error)
        self.assertIn("DISK", out)

    def test_a_refused_cancel_is_told_and_the_wait_goes_on(self):
        self.a.on_migrate = self.hold
        self.a.refuse["task.cancel"] = ["OPERATION_NOT_ALLOWED", "committed at noon"]
        process = self.start(*self.migrate())
        self.assertTrue(self.started.wait(30))
        process.send_signal(signal.SIGINT)
        while "task.cancel" not in self.a.calls:
            time.sleep(0.01)
        self.finish(self.task)
        _, error = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0, error)
        self.assertIn("committed at noon", error)

    def test_interrupting_a_wait_does_not_cancel_the_task(self):
        task = self.a.add_task()
        process = self.start("--server", "a", "task", "wait", task)
        while "event.from" not in self.a.calls:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 3)
        self.assertIn("the task goes on", error)
        self.assertNotIn("task.cancel", self.a.calls)

    def test_a_lost_connection_is_made_again(self):
        self.a.on_migrate = self.hold
        lost = []

        def drop(method):
            if method == "event.from" and len(lost) < 2:
                lost.append(method)
                if len(lost) == 2:
                    threading.Timer(0.2, lambda: self.finish(self.task)).start()
                return True
            return False

        self.a.drop = drop
        out, error = self.ferry(*self.migrate())
        self.assertEqual(error.count("lost contact"), 1)
        self.assertIn("DISK", out)

    def test_a_session_that_ends_in_the_wait_is_made_anew(self):
        self.a.on_migrate = self.hold
        process = self.start(*self.migrate())
        self.assertTrue(self.started.wait(30))
        self.a.end_sessions()
        self.b.end_sessions()
        time.sleep(0.2)
        self.finish(self.task)
        out, error = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0, error)
        self.assertIn(self.b.uuid("VM", self.arrived), out)

    def test_a_task_that_vanishes_is_an_error(self):
        self.a.on_migrate = self.hold
        process = self.start(*self.migrate())
        self.assertTrue(self.started.wait(30))
        with self.a.changed:
            self.a.objects["task"].clear()
            self.a._touch("task", self.task)
        _, error = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 1)
        self.assertIn("no task", error)


if __name__ == "__main__":
    unittest.main()
