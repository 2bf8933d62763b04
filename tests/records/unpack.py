"""Records of a stream -> events: undoes KPL aggregates, gzip and lines. With the de-aggregator that consumers use."""
import base64
import gzip
import hashlib
import json

from aws_kinesis_agg.deaggregator import deaggregate_records

GZIP = b"\x1f\x8b"


def lines(data):
    """The lines in the data of one Kinesis record."""
    for record in deaggregate(data):
        text = gzip.decompress(record) if record.startswith(GZIP) else record
        yield from (line for line in text.split(b"\n") if line)


def deaggregate(data, key="-"):
    """The data of each record in an aggregate, or the data as it is."""
    return [base64.b64decode(record["kinesis"]["data"]) for record in deaggregate_records([as_lambda_has_it(data, key)])]


def as_lambda_has_it(data, key):
    """One record of a Lambda event."""
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": key,
            "sequenceNumber": "0",
            "approximateArrivalTimestamp": 0,
            "data": base64.b64encode(data).decode(),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": "shardId-000000000000:0",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "",
        "awsRegion": "",
        "eventSourceARN": "",
    }


def events(data):
    """(event, line) for each event in the data of one Kinesis record; (None, line) for what is none."""
    for line in lines(data):
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        yield (event if isinstance(event, dict) else None), line


def inner_keys(data):
    """The partition keys of the records in an aggregate."""
    return {record["kinesis"]["partitionKey"] for record in deaggregate_records([as_lambda_has_it(data, "-")])}


def shard(key, shards):
    """Which of `shards` equal shards a partition key belongs to."""
    return int.from_bytes(hashlib.md5(key.encode()).digest(), "big") * shards >> 128
