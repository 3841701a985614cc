#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""npm xen-api 4.x moves VMs, over JSON-RPC and over XML-RPC (xen_api_client.mjs)."""

import json
import os
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))

from ferrytest import MIB, PASSWORD, Pool
from vmstate import different, vm_state


class XenApiClient(unittest.TestCase):
    def drive(self, transport):
        with Pool("A") as a, Pool("B") as b:
            sr_a, sr_b = a.sr_create(), b.sr_create()
            guests_a, guests_b = a.network_create(), b.network_create()
            before = {}
            for label in ("callAsync", "call"):
                vdi = a.vdi_create(sr_a, 8 * MIB)
                a.vdi_write(vdi, os.urandom(5 * MIB), MIB)
                vm = a.vm_create(label, [vdi], [guests_a])
                before[a.session.VM.get_uuid(vm)] = vm_state(a, vm)
            argument = {
                "transport": transport, "source": a.url, "destination": b.url, "user": "root",
                "password": PASSWORD, "vms": list(before), "sr": sr_b, "network": guests_b}
            done = subprocess.run(
                ["node", "xen_api_client.mjs", json.dumps(argument)],
                cwd=HERE, check=False, capture_output=True, text=True, timeout=90)
            self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
            for uuid, state in before.items():
                self.assertEqual(different(state, vm_state(b, b.vm_by_uuid(uuid))), [])
            a.wait_for_no_leftovers()
            b.wait_for_no_leftovers()

    def test_json_rpc(self):
        self.drive("json-rpc")

    def test_xml_rpc(self):
        self.drive("xml-rpc")

    def test_the_transport_that_it_finds(self):
        self.drive("auto")


if __name__ == "__main__":
    if not os.path.isdir(os.path.join(HERE, "node_modules", "xen-api")):
        print("skipped: xen-api is not installed (npm ci in tests/e2e; ./check does it)")
        sys.exit(77)
    unittest.main(verbosity=2)
