import collections
from kinesis_telemetry import Decoder  # scripts/decoder/kinesis_telemetry.py, beside this file

decoder = Decoder()
functions = collections.defaultdict(list)  # function -> summaries; in production: those of the last minute, then a metric

def handler(event, context):
    for telemetry in decoder.lambda_event(event):
        if telemetry["type"] == "kinesis-telemetry.invocation":
            functions[telemetry["functionName"]].append(telemetry["record"])

def answers(summaries):
    count = len(summaries)
    durations = sorted(summary["durationMs"] for summary in summaries if "durationMs" in summary)
    gb_ms = sum(summary.get("billedDurationMs", 0) * summary.get("memorySizeMB", 0) for summary in summaries) / 1024
    return {
        "invocations": count,
        "error_percent": 100 * sum(summary.get("status") != "success" for summary in summaries) / count,
        "p99_ms": durations[-(-99 * len(durations) // 100) - 1] if durations else None,
        "cold_percent": 100 * sum(summary.get("coldStart", False) for summary in summaries) / count,
        "dollars": gb_ms / 1000 * 0.0000166667 + count * 0.0000002,  # x86_64 in us-east-1
    }
