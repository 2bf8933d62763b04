import base64, gzip, json
from aws_kinesis_agg.deaggregator import deaggregate_records  # only for RECORD=kpl

seen = set()  # in production: a table with a time to live, or the key of an idempotent write

def handler(event, context):
    for record in deaggregate_records(event["Records"]):
        data = base64.b64decode(record["kinesis"]["data"])
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        for telemetry in map(json.loads, data.splitlines()):
            if telemetry["eventId"] not in seen:
                seen.add(telemetry["eventId"])
                handle(telemetry)

def handle(telemetry):
    print(telemetry["time"], telemetry["type"], telemetry.get("requestId"), telemetry["record"])
