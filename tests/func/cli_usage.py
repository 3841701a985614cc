#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line before any server is asked: usage, configuration, help, completion."""

import os
import subprocess
import unittest

from clitest import FERRY, TIMEOUT, CliTest

NOUNS = ["vm", "vdi", "sr", "vbd", "vif", "network", "host", "pool", "task", "user", "migration", "doctor", "api", "trust"]


class Usage(CliTest):
    def test_what_is_no_command_is_a_usage_error(self):
        for args, text in [
                ([], "no command"), (["vm"], "needs a verb"), (["nonsense"], "nonsense"),
                (["vm", "nonsense"], "vm nonsense"), (["vm", "show"], "VM is missing"),
                (["vm", "show", "a", "b"], "one word too many"),
                (["vm", "list", "--colour"], "no option --colour"),
                (["--sr", "x", "vm", "list"], "global option"),
                (["vm", "list", "-x"], "whole words"), (["vm", "list", "--json=1"], "no value"),
                (["vm", "list", "--server"], "needs a value: SERVER"),
                (["vm", "list", "--json", "--json"], "given twice"),
                (["vm", "migrate", "x"], "--to SERVER or --host HOST is missing"),
                (["vm", "migrate", "x", "--host", "h", "--copy"], "within the pool takes --sr"),
                (["vbd", "create", "--vm", "x", "--vdi", "y", "--mode", "rw"], "RO|RW"),
                (["vdi", "create", "x", "--sr", "s", "--size", "20GB"], "but must be bytes"),
                (["vdi", "create", "x", "--sr", "s", "--size", "9999999T"], "too large"),
                (["vm", "create", "x", "--vcpus", "0"], "1 to 512"),
                (["vm", "list", "--timeout", "soon"], "must be a time"),
                (["vm", "list", "--server", "http://host"], "https://"),
                (["vm", "list", "--server", "https://root:pw@host"], "without user"),
                (["trust", "https://host"], "no name for a server")]:
            with self.subTest(args=args):
                self.write_config("")
                error = self.refused(*args, code=2)
                self.assertIn(text, error)
                self.assertTrue(error.startswith("ferry: "), error)

    def test_help_and_version_are_results(self):
        for noun in NOUNS:
            self.assertIn(noun, self.ferry("--help")[0])
        out, error = self.ferry("vm", "migrate", "--help")
        self.assertIn("--dry-run", out)
        self.assertEqual(error, "")
        self.assertRegex(self.ferry("--version")[0], r"^ferry \d+\.\d+\.\d+\n$")

    def test_every_command_and_option_is_in_the_man_page(self):
        with open(os.path.join(os.path.dirname(__file__), "..", "..", "docs", "man", "ferry.1"),
                  encoding="utf-8") as file:
            page = file.read()
        for noun in NOUNS:
            verbs = self.complete(2, noun, "")
            if noun in ("api", "trust"):
                verbs = [""]
            for verb in verbs:
                command = f"{noun} {verb}".strip()
                out, _ = self.ferry(*command.split(), "--help")
                self.assertIn(f"usage: ferry {command}", out)
                self.assertIn(f"Ic {command}", page)
                for option in (line.split()[0] for line in out.splitlines()
                               if line.startswith("  --")):
                    self.assertIn(f"Fl -{option[2:]}", page, command)

    def complete(self, position, *words):
        done = subprocess.run([FERRY, "__complete", str(position), *words], env=self.env, check=True,
                              capture_output=True, text=True, timeout=TIMEOUT)
        self.assertEqual(done.stderr, "")
        return done.stdout.splitlines()

    def test_completion_comes_from_the_table(self):
        self.assertEqual(self.complete(1, ""), NOUNS)
        self.assertEqual(self.complete(1, "vi"), ["vif"])
        self.assertIn("migrate", self.complete(2, "vm", ""))
        self.assertEqual(self.complete(3, "vm", "migrate", "--dr"), ["--dry-run"])
        self.assertEqual(self.complete(5, "vm", "migrate", "x", "--json", "--js"), [])
        self.assertEqual(self.complete(4, "vbd", "create", "--mode", "R"), ["RO", "RW"])
        self.assertEqual(self.complete(9, "vm"), self.complete(2, "vm", ""))
        for words in ([], ["x"], ["99999"], ["-1", "vm"]):
            done = subprocess.run([FERRY, "__complete", *words], env=self.env, check=False,
                                  capture_output=True, text=True, timeout=TIMEOUT)
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_completion_knows_servers_and_objects(self):
        pool = self.fake("alpha")
        self.fake("beta")
        pool.add_vm("web server")
        pool.add_vm("web;rm -rf")
        words = ["--config", self.config]
        self.assertEqual(self.complete(4, *words, "--server", ""), ["alpha", "beta"])
        words += ["--server", "alpha", "vm", "show", "web"]
        self.assertEqual(self.complete(7, *words), ["web server", "web;rm -rf"])
        words = ["--config", self.config, "vm", "migrate", "x", "--to", "beta", "--sr", ""]
        self.assertEqual(self.complete(9, *words), ["local"])

    def test_completion_in_bash_quotes_what_it_offers(self):
        pool = self.fake("alpha")
        pool.add_vm("web server")
        script = os.path.join(os.path.dirname(__file__), "..", "..", "cli", "completion.bash")
        probe = (f'source {script}; PATH={os.path.dirname(FERRY)}:$PATH; '
                 'COMP_WORDS=(ferry vm show we); COMP_CWORD=3; _ferry ferry we show; '
                 'printf "%s\\n" "${COMPREPLY[@]}"')
        done = subprocess.run(["bash", "-c", probe], env={**self.env, "FERRY_CONFIG": self.config},
                              check=True, capture_output=True, text=True, timeout=TIMEOUT)
        self.assertEqual(done.stdout, "web\\ server\n")


class Configuration(CliTest):
    def test_a_file_that_others_can_read_is_refused(self):
        for mode in (0o644, 0o640, 0o602, 0o610):
            self.write_config("[server a]\nurl = https://127.0.0.1:1\n", mode)
            error = self.refused("vm", "list")
            self.assertIn(f"mode {mode:04o}", error)
            self.assertIn(f"chmod 600 {self.config}", error)

    def test_mistakes_name_the_line_and_what_is_allowed(self):
        for text, line, hint in [
                ("[server a]\nurl = https://h\ncolour = red\n", 3, "fingerprint, ca_file"),
                ("[ferry]\nurl = https://h\n", 2, "has server"),
                ("[server a]\nurl = http://h\n", 2, "https://HOST"),
                ("[server a]\nurl = https://h\nurl = https://h\n", 3, "twice"),
                ("[server a]\n[server a]\n", 2, "before"),
                ("url = https://h\n", 1, "before the first [section]"),
                ("[server]\n", 1, "[server NAME]"),
                ("[server a b]\n", 1, "no space"),
                ("[server a]\nfingerprint = 12ab\n", 2, "64"),
                ("[server a]\npassword =\n", 2, "no value"),
                ("nonsense\n", 1, "key = value"),
                ("[server a] x\n", 1, "[server NAME]")]:
            with self.subTest(text=text):
                self.write_config(text)
                error = self.refused("vm", "list")
                self.assertIn(f"{self.config} line {line}: ", error)
                self.assertIn(hint, error)

    def test_no_server_and_more_than_one_are_said(self):
        self.write_config("")
        self.assertIn("no server is named", self.refused("vm", "list", code=2))
        self.assertIn("no section [server x]", self.refused("vm", "list", "--server", "x", code=2))
        self.write_config("[server a]\nurl = https://h\n[server b]\nurl = https://i\n")
        self.assertIn("2 servers", self.refused("vm", "list", code=2))
        os.unlink(self.config)
        self.assertIn("No such file", self.refused("vm", "list"))

    def test_the_server_is_chosen_by_option_environment_and_default(self):
        for name in ("a", "b", "c"):
            self.fake(name)
        with open(self.config, "a", encoding="utf-8") as file:
            file.write("[ferry]\nserver = c\n")
        self.assertEqual(self.json("pool", "list")[0]["name_label"], "pool c")
        self.env["FERRY_SERVER"] = "b"
        self.assertEqual(self.json("pool", "list")[0]["name_label"], "pool b")
        self.assertEqual(self.json("pool", "list", "--server", "a")[0]["name_label"], "pool a")

    def test_without_a_terminal_nothing_is_asked(self):
        pool = self.fake("a")
        self.write_config(f"[server a]\nurl = {pool.url}\nuser = root\n"
                          f"fingerprint = {pool.key_fingerprint()}\n")
        error = self.refused("vm", "list")
        self.assertIn("no password for server a", error)
        self.assertIn(self.config, error)
        self.assertEqual(pool.calls, [])

    def test_the_password_is_asked_for_without_echo(self):
        pool = self.fake("a")
        self.write_config(f"[server a]\nurl = {pool.url}\nuser = root\n"
                          f"fingerprint = {pool.key_fingerprint()}\n")
        terminal = self.terminal("--json", "pool", "list")
        terminal.wait_for("password for a: ")
        terminal.type("correct horse\n")
        code, out = terminal.end()
        self.assertEqual(code, 0, terminal.seen)
        self.assertIn("pool a", out)
        self.assertNotIn("correct", terminal.seen)

    def test_ctrl_c_at_the_prompt_ends_it(self):
        pool = self.fake("a")
        self.write_config(f"[server a]\nurl = {pool.url}\nuser = root\n")
        terminal = self.terminal("pool", "list")
        terminal.wait_for("password for a: ")
        terminal.type("\x03")
        self.assertEqual(terminal.end(), (3, ""))
        self.assertEqual(pool.calls, [])


if __name__ == "__main__":
    unittest.main()
