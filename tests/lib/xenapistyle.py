# SPDX-License-Identifier: Apache-2.0
"""A session that behaves as the one in the official XenAPI.py, which most scripts are built on.

What matters here is what that file makes of answers: a missing Status or Value is a Fault,
SESSION_INVALID logs in again with the remembered arguments (three rounds), `Async` and underscores
are plain attribute access, and nothing ever times out by itself.
"""

import ssl
import xmlrpc.client

RETRY = object()


class Failure(Exception):
    """An answer with Status Failure."""

    def __init__(self, details):
        super().__init__(details)
        self.details = details


class _Method:
    def __init__(self, send, name):
        self._send = send
        self._name = name

    def __getattr__(self, part):
        return _Method(self._send, f"{self._name}.{part}")

    def __call__(self, *args):
        return self._send(self._name, args)


class _Api:
    """What `session.xenapi` is: it sends with the session in front, but for log-in and log-out."""

    def __init__(self, session):
        self._session = session

    def __getattr__(self, name):
        session = self._session
        if name.startswith("login"):
            return lambda *args: session.log_in(name, args)
        if name == "logout":
            return session.log_out
        return _Method(session.xenapi_request, name)


class Session(xmlrpc.client.ServerProxy):
    ROUNDS = 3

    def __init__(self, uri, ignore_ssl=True):
        context = ssl._create_unverified_context() if ignore_ssl else ssl.create_default_context()
        super().__init__(uri, allow_none=True, context=context)
        self._session = None
        self._login = None
        self.xenapi = _Api(self)

    @property
    def handle(self):
        return self._session

    def xenapi_request(self, methodname, params):
        if methodname.startswith("login"):
            self.log_in(methodname, params)
            return None
        if methodname in ("logout", "session.logout"):
            self.log_out()
            return None
        for _ in range(self.ROUNDS):
            method = super().__getattr__(methodname)
            result = _result_of(method(self._session, *params))
            if result is not RETRY:
                return result
            if self._login is None:
                raise xmlrpc.client.Fault(401, "You must log in")
            self.log_in(*self._login)
        raise xmlrpc.client.Fault(500, "Tried 3 times to get a valid session, but failed")

    def log_in(self, name, params):
        result = _result_of(super().__getattr__(f"session.{name}")(*params))
        if result is RETRY:
            raise xmlrpc.client.Fault(500, "Received SESSION_INVALID when logging in")
        self._session = result
        self._login = (name, params)

    def log_out(self):
        result = _result_of(super().__getattr__("session.logout")(self._session))
        self._session = self._login = None
        return result

    @property
    def api_version(self):
        pool = self.xenapi.pool.get_all()[0]
        host = self.xenapi.pool.get_master(pool)
        major = self.xenapi.host.get_API_version_major(host)
        minor = self.xenapi.host.get_API_version_minor(host)
        return f"{major}.{minor}"


def _result_of(answer):
    if not isinstance(answer, dict) or "Status" not in answer:
        raise xmlrpc.client.Fault(500, f"Missing Status in response from server: {answer!r}")
    if answer["Status"] == "Success":
        if "Value" not in answer:
            raise xmlrpc.client.Fault(500, "Missing Value in response from server")
        return answer["Value"]
    if "ErrorDescription" not in answer:
        raise xmlrpc.client.Fault(500, "Missing ErrorDescription in response from server")
    if answer["ErrorDescription"][0] == "SESSION_INVALID":
        return RETRY
    raise Failure(answer["ErrorDescription"])
