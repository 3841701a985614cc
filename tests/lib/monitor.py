# SPDX-License-Identifier: Apache-2.0
"""The second monitor of a guest's QEMU, for what a test wants to know of it."""

import json
import socket


class Monitor:
    """The second monitor of a guest's QEMU."""

    def __init__(self, pool, uuid):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(pool.path("run", "guests", uuid, "qmp2"))
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.call("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def call(self, command, **arguments):
        self.file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            answer = json.loads(self.file.readline())
            if "event" not in answer:
                return answer

    def assert_untouched(self, test):
        """One file below each disk, no bitmap, no node of ours."""
        nodes = self.call("query-named-block-nodes", flat=True)["return"]
        test.assertEqual([node["node-name"] for node in nodes if node.get("dirty-bitmaps")], [])
        test.assertEqual([node["node-name"] for node in nodes if node["node-name"].startswith("ferry.")], [])
        roots = [node["node-name"] for node in nodes if "-" not in node["node-name"]]
        test.assertEqual(len(nodes), 2 * len(roots), nodes)

    def wait_for_event(self, name):
        while json.loads(self.file.readline()).get("event") != name:
            pass
