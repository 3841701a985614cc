# SPDX-License-Identifier: Apache-2.0
"""What tests of the contract start from: a pool with a VM, and a session as scripts have it."""

import unittest

from ferrytest import MIB, PASSWORD, Pool
from xenapistyle import Failure, Session

# A ref and a uuid that nothing has.
NOBODY = "OpaqueRef:00000000-1111-2222-3333-444444444444"
ORIGIN = "19700101T00:00:00Z"


def login(pool, *more):
    session = Session(pool.url)
    session.xenapi.login_with_password("root", PASSWORD, *more)
    return session


class Contract(unittest.TestCase):
    maxDiff = None
    settings = {}

    @classmethod
    def setUpClass(cls):
        cls.a = cls.enterClassContext(Pool("A", migration_bandwidth="24MiB", **cls.settings))
        cls.sr_a, cls.guests_a = cls.a.sr_create(), cls.a.network_create()
        cls.vm = cls.a.vm_create("still", [cls.a.vdi_create(cls.sr_a, MIB)], [cls.guests_a])

    def setUp(self):
        super().setUp()
        self.session = login(self.a)
        self.api = self.session.xenapi

    def tearDown(self):
        if self.session.handle:
            self.api.session.logout()
        self.session("close")()
        super().tearDown()

    def assert_fails(self, details, call, *args):
        with self.assertRaises(Failure) as raised:
            call(*args)
        self.assertEqual(raised.exception.details, details)
