# SPDX-License-Identifier: Apache-2.0
"""A XenAPI client in the style of the scripts that drive pools: xmlrpc.client and nothing else."""

import ssl
import time
import xmlrpc.client


# So much longer than by itself a thing may take beside other tests.
BUSY = 3


def unverified():
    """Not create_default_context(), which spends 30 ms on reading the certificates that it is then told not to look at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


CONTEXT = unverified()


class Failure(Exception):
    """A call that answered Status Failure; `details` is the ErrorDescription."""

    def __init__(self, details):
        super().__init__(repr(details))
        self.details = details

    @property
    def code(self):
        return self.details[0]


class Transport(xmlrpc.client.SafeTransport):
    """TLS without a check of the (self-signed) certificate, and no call that hangs for ever."""

    def __init__(self, timeout):
        super().__init__(context=CONTEXT)
        self._timeout = timeout

    def make_connection(self, host):
        connection = super().make_connection(host)
        connection.timeout = self._timeout
        return connection


class Call:
    """session.VM.get_record(...): collects the name, then calls with the session in front."""

    def __init__(self, session, name):
        self._session = session
        self._name = name

    def __getattr__(self, part):
        return Call(self._session, f"{self._name}.{part}")

    def __call__(self, *args):
        return self._session.call(self._name, *args)


class Session:
    """One login. Use from one thread; `other()` makes another for a second thread."""

    def __init__(self, url, user, password, timeout=120.0):
        self.url, self.user, self.password, self.timeout = url, user, password, timeout
        self._server = xmlrpc.client.ServerProxy(url, transport=Transport(timeout))
        self.ref = self.raw("session.login_with_password", user, password, "1.0", "ferrytest")

    def other(self):
        return Session(self.url, self.user, self.password, self.timeout)

    def raw(self, method, *args):
        """A call without the session as its first argument."""
        response = getattr(self._server, method)(*args)
        if response["Status"] != "Success":
            raise Failure(response["ErrorDescription"])
        return response["Value"]

    def call(self, method, *args):
        return self.raw(method, self.ref, *args)

    def __getattr__(self, name):
        return Call(self, name)

    def logout(self):
        self.call("session.logout")
        self.close()

    def close(self):
        """Drops the connection; the session stays."""
        self._server("close")()


def task_outcome(session, task):
    """The result of a finished task, unpacked, or the Failure that it ended with."""
    record = session.task.get_record(task)
    if record["status"] == "success":
        return record["result"].replace("<value>", "").replace("</value>", "")
    if record["status"] == "cancelled":
        raise Failure(record["error_info"] or ["TASK_CANCELLED", task])
    raise Failure(record["error_info"])


def wait_by_polling(session, task, timeout=120.0):
    """What most scripts do: get_status until it is no longer pending."""
    timeout *= BUSY
    deadline = time.monotonic() + timeout
    while session.task.get_status(task) == "pending":
        if time.monotonic() > deadline:
            raise TimeoutError(f"task still pending after {timeout} s")
        time.sleep(0.1)
    return task_outcome(session, task)


def wait_by_events(session, task, timeout=120.0):
    """What xe does: event.from on the one task."""
    timeout *= BUSY
    deadline = time.monotonic() + timeout
    token = ""
    while session.task.get_status(task) == "pending":
        if time.monotonic() > deadline:
            raise TimeoutError(f"task still pending after {timeout} s")
        answer = session.call("event.from", [f"task/{task}"], token, 10.0)
        token = answer["token"]
    return task_outcome(session, task)
