# SPDX-License-Identifier: Apache-2.0
"""HTTP over TLS by hand, to look at the very bytes of an answer."""

import json
import socket
import ssl
from xml.sax.saxutils import escape


class Answer:
    def __init__(self, head, body):
        lines = head.decode("latin-1").split("\r\n")
        self.version, self.status = lines[0].split(" ")[0], int(lines[0].split(" ")[1])
        pairs = [line.split(":", 1) for line in lines[1:]]
        self.headers = {name.strip().lower(): value.strip() for name, value in pairs}
        self.body = body


def _any_certificate():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Connection:
    """One TLS connection, on which requests follow each other."""

    _context = _any_certificate()

    def __init__(self, port, timeout=30):
        plain = socket.create_connection(("127.0.0.1", port), timeout)
        self._socket = self._context.wrap_socket(plain)
        self._unread = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def fileno(self):
        return self._socket.fileno()

    def send(self, data):
        self._socket.sendall(data)

    def request(self, method, path, body=b"", version="HTTP/1.1", headers=()):
        lines = [f"{method} {path} {version}", "Host: localhost", f"Content-Length: {len(body)}"]
        self.send("\r\n".join([*lines, *headers, "", ""]).encode() + body)
        return self.read_answer()

    def send_post(self, path, body):
        """A POST whose answer is to be read later."""
        self.send(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
                  f"Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def post(self, path, body, **kwargs):
        return self.request("POST", path, body, **kwargs)

    def is_closed_by_peer(self):
        return not self._unread and self._socket.recv(1) == b""

    def read_answer(self):
        while b"\r\n\r\n" not in self._unread:
            self._fill()
        end = self._unread.index(b"\r\n\r\n")
        answer = Answer(self._take(end), b"")
        self._take(4)
        length = int(answer.headers["content-length"])
        while len(self._unread) < length:
            self._fill()
        answer.body = self._take(length)
        return answer

    def _take(self, length):
        data = bytes(self._unread[:length])
        del self._unread[:length]
        return data

    def _fill(self):
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionResetError("the answer ended early")
        self._unread += data


def xml_call(method, *params):
    """A call as XML; a parameter is text or, in bytes, the inside of its <value>."""
    values = [p.decode() if isinstance(p, bytes) else escape(p) for p in params]
    inside = "".join(f"<param><value>{value}</value></param>" for value in values)
    return (f'<?xml version="1.0"?><methodCall><methodName>{method}</methodName>'
            f"<params>{inside}</params></methodCall>").encode()


def json_call(method, *params, number=0):
    return json.dumps({"id": number, "jsonrpc": "2.0", "method": method,
                       "params": list(params)}).encode()
