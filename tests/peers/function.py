#!/var/lang/bin/python3
"""The sample function: a custom runtime that prints lines which carry its request id.

It asks for as many invocations at once as AWS_LAMBDA_MAX_CONCURRENCY says (unset: one). The event says what to do:
{"sleep": seconds}. The answer tells how many invocations were running at that moment. The harness imports this file
too, so that what is printed and what is expected have one definition: `lines`.
"""
import http.client
import json
import os
import sys
import threading
import time

# In every line, so that the harness can tell the function's lines from everybody else's.
MARK = "sample-function"


def lines(request_id):
    """What one invocation prints: plain text, JSON, and text that is awkward to carry inside JSON."""
    return [
        f"{MARK} {request_id} plain text",
        json.dumps({"level": "INFO", "logger": MARK, "requestId": request_id, "message": "looks like JSON"}),
        f'{MARK} {request_id} "quoted" back\\slash \t tab, {{"half": of JSON',
        f"{MARK} {request_id} Grüße, 日本語, 🦀, \u2028 and </script> & more",
        f"{MARK} {request_id} long {'x' * 3000}",
    ]


running = 0
lock = threading.Lock()


def invocation(api):
    """Takes one invocation from Lambda, does it, and answers."""
    global running
    # No time-out: Lambda answers when there is work.
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    answer = api.getresponse()
    event = json.loads(answer.read() or b"{}")
    request_id = answer.headers["Lambda-Runtime-Aws-Request-Id"]
    with lock:
        running += 1
        at_once = running
        for line in lines(request_id):
            print(line)
        sys.stdout.flush()
    time.sleep(event.get("sleep", 0))
    with lock:
        running -= 1
    body = json.dumps({"requestId": request_id, "running": at_once})
    api.request("POST", f"/2018-06-01/runtime/invocation/{request_id}/response", body)
    api.getresponse().read()


def work():
    api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        invocation(api)


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")
    workers = [
        threading.Thread(target=work) for _ in range(int(os.environ.get("AWS_LAMBDA_MAX_CONCURRENCY", "1")))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
