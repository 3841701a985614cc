# SPDX-License-Identifier: Apache-2.0
"""XenAPI's HTTP handlers as a client sees them: whole requests, and uploads that a test holds in its hand."""

import base64
import http.client
import json
import ssl
import urllib.parse

CONTEXT = ssl._create_unverified_context()


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


class Answer:
    def __init__(self, response, body):
        self.status, self.body = response.status, body
        self.headers = response.headers

    @property
    def error(self):
        """Code and parameters."""
        return json.loads(self.body)


def path(handler, **query):
    return f"/{handler}?{urllib.parse.urlencode(query)}"


def connect(pool, timeout=40):
    return http.client.HTTPSConnection(pool.address, pool.port, context=CONTEXT, timeout=timeout)


def request(pool, method, target, body=None, headers=None, timeout=60):
    connection = connect(pool, timeout)
    try:
        connection.request(method, target, body=body, headers=headers or {})
        response = connection.getresponse()
        return Answer(response, response.read())
    finally:
        connection.close()


class Upload:
    """A PUT whose body is sent as the test wants: nothing of it yet."""

    def __init__(self, pool, target, length, timeout=60):
        self.connection = connect(pool, timeout)
        self.connection.putrequest("PUT", target)
        self.connection.putheader("Content-Length", str(length))
        self.connection.endheaders()

    def send(self, data):
        self.connection.send(data)
        return self

    def answer(self):
        response = self.connection.getresponse()
        return Answer(response, response.read())

    def close(self):
        self.connection.close()
