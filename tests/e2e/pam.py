#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Users whose passwords are in the host's PAM: the packaged service, pam_unix and ferry-pam, with a passwd and a shadow file
of the test's own."""

import os
import socket
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

from ferrytest import Failure, PASSWORD, Pool, wait_for  # noqa: E402
from pamhost import PamHost  # noqa: E402
from xensession import BUSY, Session  # noqa: E402

USERS = {"ferry-ann": "of Ann, in PAM", "ferry-old": "of an account that is over", "ferry-bob": "of Bob"}
DELAY = 0.3


class Logins:
    """The same login from n clients at once."""

    def __init__(self, n, url, user, password):
        self.sessions, self.failures = [], []
        self._arguments = (url, user, password, 60.0)
        self._threads = [threading.Thread(target=self._log_in) for _ in range(n)]
        for thread in self._threads:
            thread.start()

    def _log_in(self):
        try:
            self.sessions.append(Session(*self._arguments))
        except (Failure, OSError) as failure:
            self.failures.append(failure)

    def join(self):
        for thread in self._threads:
            thread.join()
        return self


class Pam(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0:
            raise unittest.SkipTest("a PAM of the test's own needs root")
        cls.host = cls.enterClassContext(PamHost(USERS, expired=["ferry-old"]))
        cls.pool = cls.enterClassContext(Pool("A", ferryd_pam_socket=cls.host.socket, ferryd_login_delay="300ms"))
        cls.api = cls.pool.session
        cls.api.call("user.create_pam", "ferry-ann", "read-only")
        cls.api.call("user.create_pam", "ferry-old", "pool-admin")

    def log_in(self, user, password, pool=None):
        return Session((pool or self.pool).url, user, password, 60.0)

    def assert_refused(self, user, password, pool=None):
        begun = time.monotonic()
        with self.assertRaises(Failure) as raised:
            self.log_in(user, password, pool)
        self.assertEqual(raised.exception.details, [
            "SESSION_AUTHENTICATION_FAILED", user, "The user name or the password is wrong"])
        self.assertGreaterEqual(time.monotonic() - begun, DELAY)

    def test_who_is_known_here_and_right_there_logs_in_with_his_role(self):
        session = self.log_in("ferry-ann", USERS["ferry-ann"])
        self.assertEqual(session.session.get_record(session.ref)["auth_user_name"], "ferry-ann")
        self.assertGreaterEqual(len(session.VM.get_all()), 0)
        with self.assertRaises(Failure) as raised:
            session.VM.create({"name_label": "not hers"})
        self.assertEqual(raised.exception.code, "RBAC_PERMISSION_DENIED")
        session.session.logout()

    def test_all_others_are_refused_alike(self):
        self.assert_refused("ferry-ann", "of Ann")
        self.assert_refused("ferry-ann", "")
        self.assert_refused("ferry-ann", "x" * 900)  # more than ferry-pam is told
        self.assert_refused("ferry-old", USERS["ferry-old"])  # PAM: the account is over
        self.assert_refused("ferry-bob", USERS["ferry-bob"])  # in PAM, but no user of Ferry
        self.assert_refused("ferry-eve", "x")
        self.assertNotIn("of Ann", self.pool.log())

    def test_he_is_shown_and_may_get_a_password_here(self):
        self.api.call("user.create_pam", "ferry-bob", "vm-operator")
        self.addCleanup(self.api.call, "user.destroy", "ferry-bob")
        self.assertEqual(sorted(self.api.call("user.list_pam")), ["ferry-ann", "ferry-bob", "ferry-old"])
        self.assertIn("in PAM", self.pool.ferry("user", "list").stdout)
        session = self.log_in("ferry-bob", USERS["ferry-bob"])
        with self.assertRaises(Failure) as raised:
            session.call("session.change_password", USERS["ferry-bob"], "new")
        self.assertEqual(raised.exception.code, "OPERATION_NOT_ALLOWED")
        self.api.call("user.set_password", "ferry-bob", "of Bob, here")
        self.assertEqual(sorted(self.api.call("user.list_pam")), ["ferry-ann", "ferry-old"])
        self.assert_refused("ferry-bob", USERS["ferry-bob"])
        self.log_in("ferry-bob", "of Bob, here").session.logout()

    def test_the_command_line_makes_one(self):
        made = self.pool.ferry("user", "create", "ferry-bob", "--role", "vm-admin", "--pam")
        self.assertEqual((made.returncode, made.stderr), (0, ""))
        self.addCleanup(self.api.call, "user.destroy", "ferry-bob")
        self.log_in("ferry-bob", USERS["ferry-bob"]).session.logout()
        again = self.pool.ferry("user", "create", "ferry-bob", "--role", "vm-admin", "--pam")
        self.assertNotEqual(again.returncode, 0)
        self.assertIn("there is a user", again.stderr)

    def test_many_log_in_at_once(self):
        logins = Logins(40, self.pool.url, "ferry-ann", USERS["ferry-ann"]).join()
        self.assertEqual((len(logins.sessions), logins.failures), (40, []))
        for session in logins.sessions:
            session.session.logout()


class WithoutPam(unittest.TestCase):
    """ferry-pam is not there, or says nothing."""

    def test_nobody_listens(self):
        with Pool("A", ferryd_pam_socket="/tmp/ferry-nobody-listens", ferryd_login_delay="0s") as pool:
            pool.session.call("user.create_pam", "ferry-ann", "read-only")
            with self.assertRaises(Failure) as raised:
                Session(pool.url, "ferry-ann", "x", 60.0)
            self.assertEqual(raised.exception.code, "SESSION_AUTHENTICATION_FAILED")
            wait_for("it says so", lambda: "systemctl enable --now ferry-pam.socket" in pool.log(), 5)

    def test_who_waits_for_pam_holds_nobody_up(self):
        path = f"/tmp/f.pam{os.getpid()}"
        with socket.socket(socket.AF_UNIX) as mute, Pool("A", ferryd_pam_socket=path, ferryd_login_delay="0s") as pool:
            self.addCleanup(os.unlink, path)
            mute.bind(path)
            os.chmod(path, 0o666)
            mute.listen(64)
            pool.session.call("user.create_pam", "ferry-ann", "read-only")
            waiting = Logins(20, pool.url, "ferry-ann", "x")
            heard = [mute.accept()[0] for _ in range(8)]
            begun = time.monotonic()
            Session(pool.url, "root", PASSWORD, 60.0).session.logout()
            self.assertLess(time.monotonic() - begun, 2 * BUSY)
            self.assertEqual((waiting.sessions, waiting.failures), ([], []))
            pool.stop()
            self.assertLess(time.monotonic() - begun, 6 * BUSY)
            waiting.join()
            self.assertEqual((len(waiting.sessions), len(waiting.failures)), (0, 20))
            for each in heard:
                each.close()


if __name__ == "__main__":
    unittest.main()
