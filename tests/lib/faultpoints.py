# SPDX-License-Identifier: Apache-2.0
"""The fault points of one daemon (base/inject.h): arming them, and proof that they were reached."""

import os
import time

from xensession import BUSY


class FaultPoints:
    """Pool("A", points=True).points. A point's rule is an action: "kill", "hang", "error EIO", "delay 200", with
    "after=UNITS" and "always" as base/inject.h says."""

    def __init__(self, folder, give=lambda path: None):
        self.folder, self.give = folder, give
        os.mkdir(folder, 0o750)
        for name in ("armed", "fired"):
            os.mkdir(os.path.join(folder, name), 0o750)
            give(os.path.join(folder, name))
        give(folder)

    def _path(self, kind, name):
        return os.path.join(self.folder, kind, name)

    def arm(self, name, rule):
        """From the daemon's next pass through it on. What was known of the point is forgotten."""
        self.disarm(name)
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{0:020d}\n{rule}\n")
        self.give(path)
        os.rename(path, self._path("armed", name))

    def disarm(self, name):
        """Ends a hang too."""
        for kind in ("armed", "fired"):
            try:
                os.unlink(self._path(kind, name))
            except FileNotFoundError:
                pass

    def clear(self):
        for kind in ("armed", "fired"):
            for name in os.listdir(os.path.join(self.folder, kind)):
                self.disarm(name)

    def passed(self, name):
        """Units that passed the point since it was armed: passes, or bytes."""
        for kind in ("armed", "fired", "armed"):  # it moves from one to the other
            try:
                with open(self._path(kind, name), encoding="ascii") as file:
                    return int(file.read(20))
            except FileNotFoundError:
                continue
        raise AssertionError(f"the point {name} is not armed")

    def is_armed(self, name):
        """It waits for its pass, hangs, or has a rule that stays."""
        return os.path.exists(self._path("armed", name))

    def wait_for(self, name, timeout=30.0, units=1):
        """Until so much has passed; AssertionError when it does not: a fault that is never met tests nothing."""
        deadline = time.monotonic() + timeout * BUSY
        while self.passed(name) < units:
            if time.monotonic() > deadline:
                raise AssertionError(f"the fault point {name} was not reached within {timeout} s")
            time.sleep(0.002)

    def never_reached(self):
        """Names of the points that were armed and that nothing has passed."""
        return sorted(name for name in os.listdir(os.path.join(self.folder, "armed")) if not self.passed(name))
