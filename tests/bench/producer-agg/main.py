"""The same task in Python, with boto3 and AWS's own module for aggregated records (`aws-kinesis-agg`). Records that are refused are sent once more.
No envelope, no queue, no account of losses."""

import http.client
import http.server
import json
import os
import sys
import threading

import boto3
from aws_kinesis_agg.aggregator import RecordAggregator
from botocore.config import Config

PORT = int(os.environ["KINESIS_TELEMETRY_PORT"])
STREAM = os.environ["KINESIS_TELEMETRY_STREAM"]
# What a request may hold.
RECORDS, BYTES = 500, 4_500_000

kinesis = boto3.client("kinesis", config=Config(retries={"total_max_attempts": 2}))


def put_all(events):
    records, size = [], 0

    def full(aggregated):
        nonlocal records, size
        _, _, data = aggregated.get_contents()
        if len(records) == RECORDS or size + len(data) > BYTES:
            put(records)
            records, size = [], 0
        records.append({"Data": data, "PartitionKey": "peer"})
        size += len(data)

    aggregator = RecordAggregator(max_size=1_000_000)
    for event in events:
        aggregated = aggregator.add_user_record("peer", json.dumps(event, separators=(",", ":")))
        if aggregated:
            full(aggregated)
    if rest := aggregator.clear_and_get():
        full(rest)
    put(records)


def put(records):
    answer = kinesis.put_records(StreamName=STREAM, Records=records)
    if answer["FailedRecordCount"]:
        failed = [record for record, result in zip(records, answer["Records"]) if "ErrorCode" in result]
        kinesis.put_records(StreamName=STREAM, Records=failed)


class Telemetry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            if events := json.loads(body):
                put_all(events)
        except Exception as problem:
            print(problem, file=sys.stderr)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def call(method, target, headers, body=None):
    connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    connection.request(method, target, json.dumps(body) if body else None, headers)
    answer = connection.getresponse()
    return answer.headers, answer.read()


def main():
    name = {"Lambda-Extension-Name": os.path.basename(os.environ["PEER_NAME"])}
    headers, _ = call("POST", "/2020-01-01/extension/register", name, {"events": ["INVOKE", "SHUTDOWN"]})
    identity = {"Lambda-Extension-Identifier": headers["Lambda-Extension-Identifier"]}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Telemetry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    call("PUT", "/2022-07-01/telemetry", identity | {"Content-Type": "application/json"}, {
        "schemaVersion": "2022-12-13",
        "types": ["platform", "function"],
        "buffering": {"maxItems": 10000, "maxBytes": 1048576, "timeoutMs": 25},
        "destination": {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{PORT}"},
    })
    while True:
        _, event = call("GET", "/2020-01-01/extension/event/next", identity)
        if json.loads(event)["eventType"] == "SHUTDOWN":
            return


main()
