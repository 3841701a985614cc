# SPDX-License-Identifier: Apache-2.0
"""Who writes to an image, by QEMU's locks."""

import os
import threading
import time


class OneWriter(threading.Thread):
    """Asks all guests of the hosts, all the time, whether they write to an image: never may two."""

    def __init__(self, hosts, inode, interval=0.005):
        super().__init__(daemon=True, name="one writer")
        self.hosts, self.inode, self.interval = list(hosts), inode, interval
        self.ended, self.seen, self.twice = threading.Event(), 0, []
        self.start()

    def run(self):
        while not self.ended.wait(self.interval):
            writers = self.locks_on(self.inode)
            self.seen += bool(writers)
            if len(writers) > 1:
                self.twice.append((time.monotonic(), sorted(writers)))

    def locks_on(self, number):
        """Guests that hold QEMU's lock "nobody else may write" (byte 201) on the image: those that write."""
        found = set()
        for host in self.hosts:
            for pid in host.guests():
                found |= {pid for line in self.fd_locks(pid) if f":{number} 201 201" in line}
        return found

    @staticmethod
    def fd_locks(pid):
        lines = []
        try:
            for fd in os.listdir(f"/proc/{pid}/fdinfo"):
                with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as file:
                    lines += [line for line in file if line.startswith("lock:")]
        except OSError:
            pass  # it ends
        return lines

    def stop(self):
        self.ended.set()
        self.join()
