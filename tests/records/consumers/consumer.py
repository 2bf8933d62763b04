from kinesis_telemetry import Decoder  # scripts/decoder/kinesis_telemetry.py, beside this file

decoder = Decoder()  # remembers 100,000 ids; in production: a table with a time to live, or an idempotent write

def handler(event, context):
    for telemetry in decoder.lambda_event(event):
        handle(telemetry)

def handle(telemetry):
    print(telemetry["time"], telemetry["type"], telemetry.get("requestId"), telemetry["record"])
