#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""XenAPI's HTTP handlers, by Python's http.client and curl."""

import hashlib
import os
import random
import sqlite3
import ssl
import subprocess
import sys
import time
import unittest
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))

import transferclient  # noqa: E402
from ferrytest import MIB, NULL, PASSWORD, Pool, allocated, has_failed, wait_for  # noqa: E402
from transferclient import Upload, basic, connect, path, request  # noqa: E402
from xensession import Failure, Session  # noqa: E402

ROOT = basic("root", PASSWORD)
SIZE = 24 * MIB


def is_sanitized(pid):
    """Such a build keeps memory of its own."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as file:
        return "san.so" in file.read()


def rss_bytes(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmRSS:"))


class Base(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.a = cls.enterClassContext(Pool("A", points=True))
        cls.sr = cls.a.sr_create()

    def setUp(self):
        self.session = self.a.session
        self.addCleanup(self.a.points.clear)

    def vdi(self, size=SIZE, image="raw"):
        vdi = self.a.vdi_create(self.sr, size, image=image)
        self.addCleanup(lambda: self.a.session.VDI.destroy(vdi))
        return vdi

    def task(self):
        return self.session.task.create("a transfer", "of a test")

    def put(self, vdi, body, **query):
        return request(self.a, "PUT", path("import_raw_vdi", vdi=vdi, session_id=self.session.ref, **query), body)

    def get(self, vdi, headers=None, **query):
        return request(self.a, "GET", path("export_raw_vdi", vdi=vdi, session_id=self.session.ref, **query),
                       headers=headers)

    def upload(self, vdi, length, **query):
        upload = Upload(self.a, path("import_raw_vdi", vdi=vdi, session_id=self.session.ref, **query), length)
        self.addCleanup(upload.close)
        return upload

    def open_reader(self, vdi, **query):
        """An export whose answer has begun."""
        connection = transferclient.connect(self.a)
        self.addCleanup(connection.close)
        connection.request("GET", path("export_raw_vdi", vdi=vdi, session_id=self.session.ref, **query))
        response = connection.getresponse()
        self.addCleanup(response.close)
        return response

    def content(self, vdi):
        answer = self.get(vdi)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.body

    def wait_for_end(self, task, timeout=10):
        wait_for("the task has ended", lambda: self.session.task.get_status(task) != "pending", timeout)
        return self.session.task.get_record(task)

    def wait_for_bytes(self, task, at_least, timeout=10):
        def come():
            text = self.session.task.get_other_config(task).get("ferry:transferred", "0")
            return int(text.split()[0]) >= at_least
        wait_for(f"{at_least} bytes have come", come, timeout)

    def assert_free(self, vdi):
        self.assertEqual(self.session.VDI.get_current_operations(vdi), {})
        self.assertIn("destroy", self.session.VDI.get_allowed_operations(vdi))

    def assert_refused(self, answer, status, code):
        self.assertEqual((answer.status, answer.error[0]), (status, code), answer.body)
        self.assertEqual(answer.headers["Content-Type"], "application/json")
        return answer.error


class RawDisks(Base):

    def test_what_goes_in_comes_out(self):
        data = random.Random(1).randbytes(3 * MIB) + bytes(12 * MIB) + random.Random(2).randbytes(MIB + 700)
        for image in ("raw", "qcow2"):
            with self.subTest(image):
                vdi = self.vdi(image=image)
                uuid = self.session.VDI.get_uuid(vdi)
                answer = self.put(uuid, data, format="raw")
                self.assertEqual((answer.status, answer.body), (200, b""))
                self.assertEqual(self.content(vdi), data + bytes(SIZE - len(data)))
                self.assertLess(allocated(self.a.vdi_path(vdi)), 6 * MIB)
                # What is not sent stays, and zeros become holes.
                self.assertEqual(self.put(vdi, bytes(2 * MIB) + b"end").status, 200)
                self.assertEqual(self.content(vdi), bytes(2 * MIB) + b"end" + data[2 * MIB + 3:] + bytes(SIZE - len(data)))
                self.assert_free(vdi)
        self.assertEqual(self.a.leftovers(), [])

    def test_a_body_in_chunks(self):
        vdi = self.vdi()
        pieces = [os.urandom(size) for size in (1, 511, 70000, 3 * MIB, 5)]
        answer = self.put(vdi, iter(pieces))
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(self.content(vdi)[:sum(map(len, pieces))], b"".join(pieces))
        end = self.session.task.get_record(answer.headers["task-id"])
        self.assertEqual(end["other_config"]["ferry:transferred"], str(sum(map(len, pieces))))
        answer = self.put(vdi, (bytes(MIB) for _ in range(25)))
        self.assert_refused(answer, 400, "VDI_TOO_SMALL")
        self.assert_free(vdi)

    def test_parts(self):
        data = os.urandom(SIZE)
        for image in ("raw", "qcow2"):
            vdi = self.vdi(image=image)
            self.put(vdi, data)
            for header, first, last in (("0-0", 0, 0), ("1-10", 1, 10), ("511-1048577", 511, 1048577),
                                        (f"{SIZE - 5}-", SIZE - 5, SIZE - 1), ("-7", SIZE - 7, SIZE - 1),
                                        (f"5-{SIZE * 9}", 5, SIZE - 1), (f"-{SIZE * 9}", 0, SIZE - 1)):
                with self.subTest(image=image, header=header):
                    answer = self.get(vdi, {"Range": f"bytes={header}"})
                    self.assertEqual((answer.status, answer.headers["Content-Range"]),
                                     (206, f"bytes {first}-{last}/{SIZE}"))
                    self.assertEqual(answer.body, data[first:last + 1])
        for header in (f"bytes={SIZE}-", "bytes=-0"):
            answer = self.get(vdi, {"Range": header})
            self.assert_refused(answer, 416, "INVALID_VALUE")
            self.assertEqual(answer.headers["Content-Range"], f"bytes */{SIZE}")
            end = self.session.task.get_record(answer.headers["task-id"])
            self.assertEqual((end["status"], end["error_info"][:2]), ("failure", ["INVALID_VALUE", "Range"]))
        for header in ("bytes=x-", "bytes=9-3", "lines=1-2", "bytes=1-2,4-5", "bytes", "bytes=-"):
            answer = self.get(vdi, {"Range": header})
            self.assertEqual((header, answer.status, len(answer.body)), (header, 200, SIZE))
        self.assertEqual(self.get(vdi, {"Range": "bytes=0-1", "If-Range": '"x"'}).status, 200)

    def test_head(self):
        vdi = self.vdi()
        answer = request(self.a, "HEAD", path("export_raw_vdi", vdi=vdi), headers=ROOT)
        self.assertEqual((answer.status, answer.headers["Content-Length"], answer.body), (200, str(SIZE), b""))
        self.assertEqual(answer.headers["Accept-Ranges"], "bytes")
        answer = request(self.a, "HEAD", path("export_raw_vdi", vdi=NULL), headers=ROOT)
        self.assertEqual((answer.status, answer.body), (404, b""))

    def test_curl(self):
        vdi = self.vdi()
        source, target = self.a.path("curl.in"), self.a.path("curl.out")
        with open(source, "wb") as file:
            file.write(os.urandom(SIZE))

        def curl(*args):
            return subprocess.run(["curl", "-sS", "--max-time", "30", "--cacert", self.a.path("state", "tls.crt"), *args],
                                  check=False, capture_output=True, text=True)
        url = f"{self.a.url}/import_raw_vdi?vdi={vdi}&format=raw"
        done = curl("-u", f"root:{PASSWORD}", "-T", source, url, "-w", "%{http_code}")
        self.assertEqual((done.returncode, done.stdout), (0, "200"), done.stderr)
        # From a pipe, in chunks.
        with open(source, "rb") as file:
            done = subprocess.run(["curl", "-sSk", "-u", f"root:{PASSWORD}", "-T", "-", url, "-w", "%{http_code}"],
                                  stdin=file, check=False, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (0, "200"), done.stderr)
        url = f"{self.a.url}/export_raw_vdi?vdi={vdi}"
        with open(source, "rb") as file:
            data = file.read()
        for part in (("-r", "0-9999999"), ("-C", "-")):  # the second goes on where the file ends
            done = curl("-b", f"session_id={self.session.ref}", *part, "-o", target, url)
            self.assertEqual(done.returncode, 0, done.stderr)
        with open(target, "rb") as file:
            self.assertEqual(file.read(), data)
        # curl waits for leave to send: the refusal comes before the body.
        done = curl("-u", "root:wrong", "-T", source, url.replace("export", "import"), "-w", "%{http_code} %{size_upload}")
        self.assertEqual(done.stdout.splitlines()[-1], "401 0", done.stderr)

    def test_parameters(self):
        vdi = self.vdi()
        for query, status, code, about in (
                ({}, 400, "INVALID_VALUE", "vdi"),
                ({"vdi": "OpaqueRef:none"}, 404, "HANDLE_INVALID", "VDI"),
                ({"vdi": "no-uuid"}, 404, "UUID_INVALID", "VDI"),
                ({"vdi": self.sr}, 404, "HANDLE_INVALID", "VDI"),
                ({"vdi": vdi, "format": "vhd"}, 400, "INVALID_VALUE", "format"),
                ({"vdi": vdi, "base": vdi}, 400, "INVALID_VALUE", "base"),
                ({"vdi": vdi, "chunked": "true"}, 400, "INVALID_VALUE", "chunked"),
                ({"vdi": vdi, "task_id": "OpaqueRef:none"}, 404, "HANDLE_INVALID", "task"),
                ({"vdi": vdi, "subtask_of": "OpaqueRef:none"}, 404, "HANDLE_INVALID", "task")):
            for method, handler in (("GET", "export_raw_vdi"), ("PUT", "import_raw_vdi")):
                with self.subTest(method=method, query=query):
                    answer = request(self.a, method, path(handler, session_id=self.session.ref, **query),
                                     b"x" * 1000 if method == "PUT" else None)
                    self.assertEqual(self.assert_refused(answer, status, code)[1], about)
        for method, handler, allowed in (("GET", "import_raw_vdi", "PUT"), ("PUT", "export_raw_vdi", "GET, HEAD"),
                                         ("DELETE", "import_raw_vdi", "PUT")):
            answer = request(self.a, method, path(handler, vdi=vdi), headers=ROOT)
            self.assertEqual((answer.status, answer.headers["Allow"]), (405, allowed))
        self.assertEqual(request(self.a, "GET", "/export_raw_vdi/x").status, 405)
        self.assert_free(vdi)

    def test_a_disk_that_is_too_small_or_read_only(self):
        vdi = self.vdi(size=MIB)
        error = self.assert_refused(self.put(vdi, bytes(MIB + 1)), 400, "VDI_TOO_SMALL")
        self.assertEqual(error[1:], [vdi, str(MIB + 1)])
        snapshot = self.session.VDI.snapshot(vdi)
        self.addCleanup(lambda: self.session.VDI.destroy(snapshot))
        self.assertEqual(self.assert_refused(self.put(snapshot, bytes(512)), 409, "VDI_READONLY")[1:], [snapshot])
        self.assertEqual(self.get(snapshot).status, 200)
        os.rename(self.a.vdi_path(vdi), self.a.path("away"))
        self.assert_refused(self.get(vdi), 500, "VDI_MISSING")
        os.rename(self.a.path("away"), self.a.vdi_path(vdi))

    def test_storage_that_fails(self):
        vdi = self.vdi()
        for point, rule, status, code in (("file.write", "error ENOSPC", 507, "SR_BACKEND_FAILURE_44"),
                                          ("file.flush", "error EIO", 500, "INTERNAL_ERROR")):
            self.a.points.arm(point, rule)
            answer = self.put(vdi, b"x" * MIB)
            self.assert_refused(answer, status, code)
            end = self.session.task.get_record(answer.headers["task-id"])
            self.assertEqual((end["status"], end["error_info"]), ("failure", answer.error))
            self.assert_free(vdi)
        # The answer has begun: what is missing is seen, and the task tells.
        task = self.task()
        self.a.vdi_write(vdi, b"x", offset=SIZE - 1)
        self.a.points.arm("file.read", f"error EIO from={SIZE - 512}")
        with self.assertRaises((transferclient.http.client.IncompleteRead, ConnectionError, ssl.SSLError)):
            self.get(vdi, task_id=task)
        self.assertEqual(self.wait_for_end(task)["error_info"][0], "INTERNAL_ERROR")
        self.assert_free(vdi)


class Access(Base):

    def n_sessions(self):
        db = sqlite3.connect(f"file:{self.a.path('state', 'pool.db')}?mode=ro", uri=True)
        try:
            return db.execute("SELECT count(*) FROM session").fetchone()[0]
        finally:
            db.close()

    def test_who_may(self):
        vdi = self.vdi()
        target = path("export_raw_vdi", vdi=vdi)
        before = self.n_sessions()
        for headers, code in (({}, "SESSION_INVALID"), ({"Cookie": "session_id=OpaqueRef:none"}, "SESSION_INVALID"),
                              (basic("root", "wrong"), "SESSION_AUTHENTICATION_FAILED"),
                              (basic("nobody", PASSWORD), "SESSION_AUTHENTICATION_FAILED"),
                              ({"Authorization": "Basic !"}, "SESSION_INVALID")):
            answer = request(self.a, "GET", target, headers=headers)
            self.assert_refused(answer, 401, code)
            self.assertIn("Basic", answer.headers["WWW-Authenticate"])
        self.assertEqual(request(self.a, "GET", target, headers=ROOT).status, 200)
        self.assertEqual(request(self.a, "GET", target, headers={"Cookie": f"session_id={self.session.ref}"}).status, 200)
        self.assertEqual(self.n_sessions(), before)

    def test_a_role_that_does_not_suffice(self):
        self.session.call("user.create", "op", "word", "vm-operator")
        self.session.call("user.create", "adm", "word", "vm-admin")
        vdi = self.vdi()
        for method, handler, name in (("GET", "export_raw_vdi", "http/get_export_raw_vdi"),
                                      ("PUT", "import_raw_vdi", "http/put_import_raw_vdi")):
            answer = request(self.a, method, path(handler, vdi=vdi), b"x" * 512, basic("op", "word"))
            self.assertEqual(self.assert_refused(answer, 403, "RBAC_PERMISSION_DENIED")[1], name)
            answer = request(self.a, method, path(handler, vdi=vdi), b"x" * 512, basic("adm", "word"))
            self.assertEqual(answer.status, 200, answer.body)
            self.assertIn(f'AUDIT user="op" role=vm-operator address=127.0.0.1 method={name} ', self.a.log())
        # A task of somebody else's.
        task = self.task()
        answer = request(self.a, "GET", path("export_raw_vdi", vdi=vdi, task_id=task), headers=basic("adm", "word"))
        self.assert_refused(answer, 403, "RBAC_PERMISSION_DENIED")
        self.assertEqual(self.session.task.get_status(task), "pending")
        # One's own learns of the refusal.
        user = Session(self.a.url, "op", "word")
        self.addCleanup(user.close)
        task = user.task.create("mine", "")
        request(self.a, "GET", path("export_raw_vdi", vdi=vdi, task_id=task, session_id=user.ref))
        self.assertEqual(self.wait_for_end(task)["error_info"][0], "RBAC_PERMISSION_DENIED")


class Tasks(Base):

    def test_the_clients_task(self):
        vdi, task = self.vdi(), self.task()
        upload = self.upload(vdi, SIZE, task_id=task).send(bytes(SIZE // 2))
        self.wait_for_bytes(task, SIZE // 2)
        record = self.session.task.get_record(task)
        self.assertEqual((record["status"], record["allowed_operations"]), ("pending", ["cancel"]))
        self.assertAlmostEqual(record["progress"], 0.5, delta=0.02)
        self.assertEqual(upload.send(bytes(SIZE - SIZE // 2)).answer().status, 200)
        record = self.session.task.get_record(task)
        self.assertEqual((record["status"], record["progress"], record["error_info"]), ("success", 1.0, []))
        self.assert_refused(self.get(vdi, task_id=task), 409, "OPERATION_NOT_ALLOWED")
        self.assertEqual(self.session.task.get_status(task), "success")

    def test_a_part_of_another_task(self):
        vdi, parent = self.vdi(), self.task()
        answer = self.put(vdi, b"x" * 512, subtask_of=parent)
        self.assertEqual(self.session.task.get_subtasks(parent), [answer.headers["task-id"]])
        self.assertEqual(self.session.task.get_status(parent), "pending")

    def test_a_failure(self):
        vdi, task = self.vdi(size=MIB), self.task()
        error = self.put(vdi, bytes(2 * MIB), task_id=task).error
        end = self.session.task.get_record(task)
        self.assertEqual((end["status"], end["error_info"]), ("failure", error))

    def test_the_disk_is_taken_meanwhile(self):
        vdi, task = self.vdi(), self.task()
        upload = self.upload(vdi, SIZE, task_id=task).send(bytes(MIB))
        self.wait_for_bytes(task, MIB)
        self.assertEqual(self.session.VDI.get_current_operations(vdi), {task: "update"})
        self.assertEqual(self.session.VDI.get_allowed_operations(vdi), [])
        for answer in (self.put(vdi, b"x" * 512), self.get(vdi)):
            error = self.assert_refused(answer, 409, "OTHER_OPERATION_IN_PROGRESS")
            self.assertEqual(error[1:], ["VDI", vdi, "update", task])
            self.assertEqual(self.session.task.get_error_info(answer.headers["task-id"]), error)
        with self.assertRaises(Failure) as raised:
            self.session.VDI.destroy(vdi)
        self.assertEqual(raised.exception.code, "VDI_IN_USE")
        upload.send(bytes(SIZE - MIB)).answer()
        self.assert_free(vdi)
        # Readers do not mind each other.
        reader = self.open_reader(vdi)
        reader.read(1)
        self.assertEqual(self.session.VDI.get_allowed_operations(vdi), ["copy"])
        self.assertEqual(self.get(vdi).status, 200)
        self.assert_refused(self.put(vdi, b"x" * 512), 409, "OTHER_OPERATION_IN_PROGRESS")
        reader.close()

        def free():
            return not self.session.VDI.get_current_operations(vdi)
        wait_for("a reader that went away is noticed", free, 5)
        self.assert_free(vdi)

    def test_a_running_guests_disk(self):
        vdi = self.a.vdi_create(self.sr, SIZE)
        vm = self.a.vm_create("guest", [vdi])
        self.session.VM.set_memory_limits(vm, *[str(64 * MIB)] * 4)
        self.session.VM.start(vm, False, False)
        self.assertEqual(self.assert_refused(self.get(vdi), 409, "VDI_IN_USE")[1:], [vdi, "copy"])
        self.assertEqual(self.assert_refused(self.put(vdi, b"x" * 512), 409, "VDI_IN_USE")[1:], [vdi, "update"])
        self.session.VM.hard_shutdown(vm)
        task = self.task()
        upload = self.upload(vdi, SIZE, task_id=task).send(bytes(MIB))
        self.wait_for_bytes(task, MIB)
        with self.assertRaises(Failure) as raised:
            self.session.VM.start(vm, False, False)
        self.assertEqual(raised.exception.code, "VDI_IN_USE")
        upload.close()
        self.wait_for_end(task)
        self.session.VM.destroy(vm)
        self.session.VDI.destroy(vdi)

    def test_cancel(self):
        vdi, task = self.vdi(), self.task()
        upload = self.upload(vdi, SIZE, task_id=task).send(b"x" * MIB)
        self.wait_for_bytes(task, MIB)
        begun = time.monotonic()
        self.session.task.cancel(task)
        end = self.wait_for_end(task, 10)
        self.assertLess(time.monotonic() - begun, 5)
        self.assertEqual((end["status"], end["error_info"]), ("cancelled", []))
        self.assertTrue(end["other_config"]["ferry:transferred"].startswith(f"{MIB} of "))
        self.assert_free(vdi)
        # What is left of the body is little enough to be read: the client sees why.
        upload.send(b"x" * 7 * MIB)
        with self.assertRaises((OSError, transferclient.http.client.HTTPException)):
            upload.send(b"x" * 16 * MIB).answer()
        small = self.task()
        upload = self.upload(vdi, 2 * MIB, task_id=small).send(b"x" * MIB)
        self.wait_for_bytes(small, MIB)
        self.session.task.cancel(small)
        self.wait_for_end(small, 5)
        self.assert_refused(upload.send(b"x" * MIB).answer(), 409, "TASK_CANCELLED")
        # A reader that does not read; and one whose task was cancelled before it came.
        task = self.task()
        big = self.vdi(size=512 * MIB)
        self.open_reader(big, task_id=task)
        self.session.task.cancel(task)
        self.assertEqual(self.wait_for_end(task, 5)["status"], "cancelled")
        self.assert_free(big)
        task = self.task()
        self.session.task.cancel(task)
        self.assert_refused(self.get(vdi, task_id=task), 409, "TASK_CANCELLED")
        self.assertEqual(self.session.task.get_status(task), "cancelled")


class BrokenOff(Base):

    def test_a_short_upload(self):
        vdi, task = self.vdi(), self.task()
        self.upload(vdi, SIZE, task_id=task).send(b"x" * MIB).close()
        end = self.wait_for_end(task)
        self.assertEqual((end["status"], end["error_info"][0]), ("failure", "IMPORT_ERROR_PREMATURE_EOF"))
        self.assertIn(f"after {MIB} of {SIZE} bytes", end["error_info"][1])
        self.assert_free(vdi)
        data = os.urandom(SIZE)
        self.assertEqual(self.put(vdi, data).status, 200)
        self.assertEqual(self.content(vdi), data)

    def test_many_at_once(self):
        """Each costs a thread and little memory; calls and short transfers go on, and there is an end of it."""
        vdis = [self.vdi() for _ in range(16)]
        uploads = [self.upload(vdi, SIZE).send(b"x" * MIB) for vdi in vdis]
        wait_for("all are under way",
                 lambda: all(self.session.VDI.get_current_operations(vdi) for vdi in vdis), 10)
        begun = time.monotonic()
        for _ in range(50):
            self.session.VDI.get_all()
        self.assertLess(time.monotonic() - begun, 10)
        if not is_sanitized(self.a.process.pid):
            self.assertLess(rss_bytes(self.a.process.pid), 64 * MIB)
        answer = self.get(vdis[0])
        self.assertEqual(answer.status, 503)
        for upload in uploads:
            upload.close()
        wait_for("all have ended",
                 lambda: not any(self.session.VDI.get_current_operations(vdi) for vdi in vdis), 10)

    def test_stopped_or_killed(self):
        with Pool("B") as b:
            sr = b.sr_create()
            for image in ("raw", "qcow2"):
                vdi = b.vdi_create(sr, SIZE, image=image)
                for end in (b.kill, b.stop):
                    with self.subTest(image=image, end=end.__name__):
                        task = b.session.task.create("cut off", "")
                        upload = Upload(b, path("import_raw_vdi", vdi=vdi, session_id=b.session.ref, task_id=task), SIZE)
                        upload.send(b"x" * 3 * MIB)
                        wait_for("some has come", lambda: b.session.task.get_other_config(task).get(
                            "ferry:transferred", "").startswith(str(3 * MIB)), 10)
                        end()
                        upload.close()
                        b.start()
                        record = b.session.task.get_record(task)
                        self.assertEqual(record["status"], "failure", record)
                        self.assertIn(f"{3 * MIB} of {SIZE} bytes", record["error_info"][1])
                        self.assertEqual(b.session.VDI.get_current_operations(vdi), {})
                        self.assertEqual(b.leftovers(), [])
                        data = os.urandom(MIB)
                        answer = request(b, "PUT", path("import_raw_vdi", vdi=vdi), data, ROOT)
                        self.assertEqual(answer.status, 200, answer.body)
                        answer = request(b, "GET", path("export_raw_vdi", vdi=vdi), headers={**ROOT, "Range": f"bytes=0-{MIB - 1}"})
                        self.assertEqual(answer.body, data)


class CommandLine(Base):

    def ferry(self, *args, status=0):
        done = self.a.ferry(*args)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout + done.stderr

    def test_files(self):
        vdi = self.vdi(image="qcow2")
        uuid = self.session.VDI.get_uuid(vdi)
        source, target = self.a.path("cli.in"), self.a.path("cli.out")
        data = os.urandom(MIB) + bytes(8 * MIB) + os.urandom(MIB + 5)
        with open(source, "wb") as file:
            file.write(data)
        self.ferry("vdi", "import", uuid, source)
        self.ferry("vdi", "export", uuid, target)
        with open(target, "rb") as file:
            self.assertEqual(file.read(), data + bytes(SIZE - len(data)))
        self.assertLess(allocated(target), 3 * MIB)
        self.assertIn("not overwritten", self.ferry("vdi", "export", uuid, target, status=1))
        self.assertIn("No such file", self.ferry("vdi", "import", uuid, self.a.path("none"), status=1))
        small = self.vdi(size=MIB)
        self.assertIn("too small", self.ferry("vdi", "import", self.session.VDI.get_uuid(small), source, status=1))
        os.unlink(target)
        task = self.task()
        upload = self.upload(vdi, SIZE, task_id=task).send(b"x")
        self.wait_for_bytes(task, 0)
        self.ferry("vdi", "export", uuid, target, status=1)
        self.assertFalse(os.path.exists(target))
        upload.close()
        self.wait_for_end(task)


class OfAnotherHost(unittest.TestCase):

    def test_the_client_is_sent_there(self):
        a = self.enterContext(Pool("A"))
        b = self.enterContext(Pool("B")).join(a)
        vdi = b.vdi_create(b.sr_create(), SIZE)
        data = os.urandom(SIZE)
        task = a.session.task.create("there", "")
        target = path("import_raw_vdi", vdi=vdi, task_id=task)
        cookie = {"Cookie": f"session_id={a.session.ref}"}
        answer = request(a, "PUT", target, b"x" * 512, cookie)
        self.assertEqual(answer.status, 302)
        location = urllib.parse.urlsplit(answer.headers["Location"])
        self.assertEqual((location.port, location.path), (b.port, "/import_raw_vdi"))
        self.assertRegex(answer.headers["X-Ferry-Fingerprint"], "^[0-9a-f]{64}$")
        self.assertEqual(a.session.task.get_status(task), "pending")
        answer = request(b, "PUT", f"{location.path}?{location.query}", data)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(a.session.task.get_status(task), "success")
        done = subprocess.run(["curl", "-sSkL", f"{a.url}{path('export_raw_vdi', vdi=vdi, session_id=a.session.ref)}"],
                              check=True, capture_output=True)
        self.assertEqual(hashlib.sha256(done.stdout).digest(), hashlib.sha256(data).digest())
        source = a.path("cli.in")
        with open(source, "wb") as file:
            file.write(data[::-1])
        done = a.ferry("vdi", "import", a.session.VDI.get_uuid(vdi), source)
        self.assertEqual(done.returncode, 0, done.stderr)
        done = a.ferry("vdi", "export", a.session.VDI.get_uuid(vdi), a.path("cli.out"))
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(a.path("cli.out"), "rb") as file:
            self.assertEqual(file.read(), data[::-1])
        # Cancelled at the coordinator.
        task = a.session.task.create("there", "")
        upload = Upload(b, path("import_raw_vdi", vdi=vdi, task_id=task, session_id=a.session.ref), SIZE)
        upload.send(data[:MIB])
        wait_for("some has come", lambda: a.session.task.get_other_config(task).get("ferry:transferred"), 10)
        a.session.task.cancel(task)
        wait_for("it is cancelled", lambda: a.session.task.get_status(task) == "cancelled", 5)
        upload.close()
        # The member is killed in the middle.
        task = a.session.task.create("there", "")
        upload = Upload(b, path("import_raw_vdi", vdi=vdi, task_id=task, session_id=a.session.ref), SIZE)
        upload.send(data[:MIB])
        wait_for("some has come", lambda: a.session.task.get_other_config(task).get(
            "ferry:transferred", "").startswith(str(MIB)), 10)
        b.kill()
        upload.close()
        b.start()
        self.assertIn(f"{MIB} of {SIZE} bytes", a.session.task.get_error_info(task)[1])
        self.assertEqual(a.session.VDI.get_current_operations(vdi), {})
        # A password is checked by the coordinator alone.
        answer = request(b, "GET", path("export_raw_vdi", vdi=vdi), headers=ROOT)
        self.assertEqual((answer.status, answer.error[0]), (401, "HOST_IS_SLAVE"))


class WithoutTheCoordinator(unittest.TestCase):
    """What a member sends or takes goes on while the coordinator is away, and so does its task."""

    @classmethod
    def setUpClass(cls):
        cls.a = cls.enterClassContext(Pool("A"))
        cls.b = cls.enterClassContext(Pool("B")).join(cls.a)
        cls.vdi = cls.b.vdi_create(cls.b.sr_create(), SIZE)
        cls.path = cls.b.vdi_path(cls.vdi)
        cls.data = os.urandom(SIZE)

    def tearDown(self):
        if has_failed(self):
            self.a.show_log(40)
            self.b.show_log(80)

    @property
    def tasks(self):
        return self.a.session.task

    def begin(self):
        task = self.tasks.create("there", "")
        target = path("import_raw_vdi", vdi=self.vdi, task_id=task, session_id=self.a.session.ref)
        upload = Upload(self.b, target, SIZE).send(self.data[:MIB])
        wait_for("some has come", lambda: self.tasks.get_other_config(task).get("ferry:transferred", "").startswith(str(MIB)), 10)
        return task, upload

    def ended(self, task):
        wait_for("the task ends", lambda: self.tasks.get_status(task) != "pending", 30)
        return self.tasks.get_status(task)

    def test_an_import_goes_on_when_it_was_restarted(self):
        task, upload = self.begin()
        self.a.kill()
        upload.send(self.data[MIB:2 * MIB])
        self.a.start()
        self.assertEqual(self.tasks.get_status(task), "pending")
        self.assertEqual(self.tasks.get_error_info(task), [])
        answer = upload.send(self.data[2 * MIB:]).answer()
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(self.ended(task), "success")
        with open(self.path, "rb") as file:
            self.assertEqual(hashlib.sha256(file.read()).digest(), hashlib.sha256(self.data).digest())

    def test_it_can_be_cancelled_by_the_coordinator_that_was_restarted(self):
        task, upload = self.begin()
        self.a.kill()
        self.a.start()
        self.tasks.cancel(task)
        self.assertEqual(self.ended(task), "cancelled")
        upload.close()
        wait_for("the disk is free", lambda: not self.a.session.VDI.get_current_operations(self.vdi), 10)

    def test_a_member_that_dies_meanwhile_fails_it(self):
        task, upload = self.begin()
        self.a.kill()
        self.b.kill()
        upload.close()
        self.a.start()
        self.assertEqual(self.tasks.get_status(task), "pending")
        self.b.start()
        self.assertEqual(self.ended(task), "failure")
        self.assertIn("restarted after about", self.tasks.get_error_info(task)[1])
        self.assertEqual(self.a.session.VDI.get_current_operations(self.vdi), {})

    def test_its_end_is_told_when_it_is_back(self):
        """The export's last byte goes out while nobody can be told."""
        task = self.tasks.create("there", "")
        connection = connect(self.b)
        connection.request("GET", path("export_raw_vdi", vdi=self.vdi, task_id=task, session_id=self.a.session.ref))
        response = connection.getresponse()
        response.read(1)
        self.a.kill()
        self.assertEqual(len(response.read()), SIZE - 1)
        connection.close()
        self.a.start()
        self.assertEqual(self.ended(task), "success")
        wait_for("the disk is free", lambda: not self.a.session.VDI.get_current_operations(self.vdi), 10)


class TheStalled(Base):
    """Its class is the last one: the client has said nothing since the first began."""

    @classmethod
    def setUpClass(cls):
        pass

    def setUp(self):
        self.session = STALLED["pool"].session

    def test_a_client_that_stalls(self):
        end = self.wait_for_end(STALLED["task"], 45)
        self.assertGreater(time.monotonic() - STALLED["since"], 25)
        self.assertEqual(end["error_info"][0], "IMPORT_ERROR_PREMATURE_EOF")
        self.assertIn(f"no progress for 30 s, after {MIB} of {SIZE} bytes", end["error_info"][1])
        self.assert_free(STALLED["vdi"])


STALLED = {}


def setUpModule():
    """A client that says nothing any more: half a minute, while the other tests run."""
    pool = unittest.enterModuleContext(Pool("S"))
    vdi = pool.vdi_create(pool.sr_create(), SIZE)
    task = pool.session.task.create("stalled", "")
    upload = Upload(pool, path("import_raw_vdi", vdi=vdi, session_id=pool.session.ref, task_id=task), SIZE)
    unittest.addModuleCleanup(upload.close)
    STALLED.update(pool=pool, vdi=vdi, task=task, since=time.monotonic(), upload=upload.send(b"x" * MIB))


if __name__ == "__main__":
    unittest.main(verbosity=2)
