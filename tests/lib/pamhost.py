#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A host's PAM with users of its own. Run as `pamhost.py FOLDER`, in a mount namespace of its own, it lays FOLDER's passwd,
shadow and pam.d over the host's, and then does what systemd does with ferry-pam.socket: FOLDER/socket, and a ferry-pam for
each connection."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile

SOURCE = os.environ.get("FERRY_SOURCE", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
BIN = os.environ.get("FERRY_BIN", os.path.join(SOURCE, "build", "dev", "bin"))
LAID_OVER = {"passwd": "/etc/passwd", "shadow": "/etc/shadow", "pam.d": "/etc/pam.d"}


class PamHost:
    """users: name -> password; expired: names whose accounts are over."""

    def __init__(self, users, expired=()):
        self.folder = tempfile.mkdtemp(prefix="f.", dir="/tmp")
        os.chmod(self.folder, 0o755)
        self.socket = os.path.join(self.folder, "socket")
        self._process = None
        shutil.copytree("/etc/pam.d", self._path("pam.d"))
        shutil.copy(os.path.join(SOURCE, "packaging", "ferry.pam"), self._path("pam.d", "ferry"))
        for name in ("passwd", "shadow"):
            shutil.copy(f"/etc/{name}", self._path(name))
        os.chmod(self._path("shadow"), 0o600)
        for number, (name, password) in enumerate(users.items()):
            self._add(name, 61000 + number, password, "1" if name in expired else "")

    def _path(self, *parts):
        return os.path.join(self.folder, *parts)

    def _add(self, name, uid, password, expires):
        hashed = subprocess.run(["openssl", "passwd", "-6", "-stdin"], input=password + "\n", check=True,
                                capture_output=True, text=True).stdout.strip()
        with open(self._path("passwd"), "a", encoding="utf-8") as passwd:
            passwd.write(f"{name}:x:{uid}:65534::/nonexistent:/usr/sbin/nologin\n")
        with open(self._path("shadow"), "a", encoding="utf-8") as shadow:
            shadow.write(f"{name}:{hashed}:19700:0:99999:7::{expires}:\n")

    def __enter__(self):
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", sys.executable, os.path.abspath(__file__), self.folder],
            stdout=subprocess.PIPE)
        if self._process.stdout.readline() != b"ready\n":
            self.__exit__()
            raise RuntimeError("the PAM host did not start")
        return self

    def __exit__(self, *_):
        self.end()
        shutil.rmtree(self.folder)

    def end(self):
        """The socket is gone, as when it was never enabled."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()
            self._process = None
        if os.path.exists(self.socket):
            os.unlink(self.socket)


def serve(folder):
    for name, place in LAID_OVER.items():
        subprocess.run(["mount", "--bind", os.path.join(folder, name), place], check=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.join(folder, "socket"))
        os.chmod(os.path.join(folder, "socket"), 0o666)
        listener.listen(64)
        print("ready", flush=True)
        running = []
        while True:
            connection, _ = listener.accept()
            with connection:
                running.append(subprocess.Popen([os.path.join(BIN, "ferry-pam")], stdin=connection, stdout=connection))
            running = [each for each in running if each.poll() is None]


if __name__ == "__main__":
    serve(sys.argv[1])
