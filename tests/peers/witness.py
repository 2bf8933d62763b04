#!/var/lang/bin/python3
"""A second extension beside the one under test: subscribes to the same telemetry and keeps the bodies, in /tmp/witness.

What Lambda really posted is known from here, so that what arrives on the stream can be held to it, byte for byte.
"""
import http.client
import http.server
import itertools
import json
import os
import pathlib
import sys
import threading
import time

PORT = 4244
BODIES = pathlib.Path("/tmp/witness")
# What comes after SHUTDOWN comes at once; the extension under test waits as long for it.
LAST = 0.3
number = itertools.count()
# Held while a body is being taken: one that is not answered is not kept either.
taking = threading.Lock()


class Listener(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        with taking:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            (BODIES / f"{next(number):06}").write_bytes(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_):
        pass


def call(method, path, headers, body=None):
    # No time-out: the answer to `next` comes at SHUTDOWN.
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    api.request(method, path, body and json.dumps(body), headers)
    answer = api.getresponse()
    text = answer.read()
    if answer.status != 200:
        sys.exit(f"witness: {path}: {answer.status} {text}")
    return answer


BODIES.mkdir()
server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Listener)
threading.Thread(target=server.serve_forever, daemon=True).start()

name = {"Lambda-Extension-Name": os.path.basename(sys.argv[0])}
registered = call("POST", "/2020-01-01/extension/register", name, {"events": ["SHUTDOWN"]})
identifier = {"Lambda-Extension-Identifier": registered.headers["Lambda-Extension-Identifier"]}
subscription = {
    "schemaVersion": "2025-01-29",
    "types": ["platform", "function"],
    "buffering": {"maxItems": 10000, "maxBytes": 1048576, "timeoutMs": 25},
    "destination": {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{PORT}/"},
}
call("PUT", "/2022-07-01/telemetry", identifier, subscription)
call("GET", "/2020-01-01/extension/event/next", identifier)
time.sleep(LAST)
# Not released: this process ends.
taking.acquire()
