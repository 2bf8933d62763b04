"""Reads a stream back as any consumer would, and holds what it finds to the extension's promises."""
import collections
import gzip
import json
import pathlib
import re
import sys

from process import Failure

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "records"))
import unpack

Event = collections.namedtuple("Event", "line fields")
NAME = "telemetry"
REGION = "us-east-1"
LEDGER = "kinesis-telemetry.ledger"


def create(kinesis):
    """A new, empty stream, ready for use; its ARN. Two shards, so that reading back has to look at each."""
    kinesis.create_stream(StreamName=NAME, ShardCount=2)
    kinesis.get_waiter("stream_exists").wait(StreamName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    return kinesis.describe_stream_summary(StreamName=NAME)["StreamDescriptionSummary"]["StreamARN"]


def read(kinesis):
    """Every event on the stream: all shards from their beginning, each record's data split at line ends."""
    events = []
    for shard in kinesis.list_shards(StreamName=NAME)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=NAME, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while True:
            answer = kinesis.get_records(ShardIterator=iterator)
            if not answer["Records"]:
                break
            iterator = answer["NextShardIterator"]
            for record in answer["Records"]:
                for data in packed(record):
                    events += parse(data.decode())
    return events


def packed(record):
    """The data of one Kinesis record, or of each record in a KPL aggregate, unzipped; by the de-aggregator that consumers use."""
    data = record["Data"]
    if data.startswith(b"\xf3\x89\x9a\xc2") and unpack.inner_keys(data) != {record["PartitionKey"]}:
        raise Failure(f"consumers drop an aggregate with other keys inside than {record['PartitionKey']}: {unpack.inner_keys(data)}")
    return [gzip.decompress(part) if part.startswith(unpack.GZIP) else part for part in unpack.deaggregate(data)]


def parse(data):
    """The events in one Kinesis record with RECORD=lines: each line ends with a line feed."""
    if not data.endswith("\n"):
        raise Failure(f"a Kinesis record does not end with a line feed: {data[-80:]!r}")
    try:
        return [Event(line, json.loads(line)) for line in data[:-1].split("\n")]
    except ValueError as error:
        raise Failure(f"a line on the stream is no JSON: {error}: {data[:300]!r}") from error


def raw_record(text, start=0):
    """The record of the event that begins at or after `start`, byte for byte, and where it ends."""
    key = '"record":'
    begin = text.index(key, start) + len(key)
    _, end = json.JSONDecoder().raw_decode(text, begin)
    return text[begin:end], end


def check_event_ids(events):
    """Ids have the form <16 hex>-<n>, all of one process, and run from 1 without gap or repeat.

    The extension's own ledger takes no number: a consumer counts what came from Lambda.
    """
    ids = [event.fields.get("eventId", "") for event in events if event.fields["type"] != LEDGER]
    odd = [event_id for event_id in ids if not re.fullmatch(r"[0-9a-f]{16}-[1-9][0-9]*", event_id)]
    if odd:
        raise Failure(f"event ids of another form: {odd[:3]}")
    if len({event.fields["eventId"].split("-")[0] for event in events}) != 1:
        raise Failure("one process, but event ids of several")
    numbers = sorted(int(event_id.split("-")[1]) for event_id in ids)
    if numbers != list(range(1, len(ids) + 1)):
        raise Failure(f"event ids do not run from 1 to {len(ids)}: {numbers}")


def check_ledger(events):
    """One ledger, the last event, in which nothing was lost. Returns how many events it says were received."""
    ledgers = [event for event in events if event.fields["type"] == LEDGER]
    # With PARTITION_KEY=sandbox all events of a sandbox are on one shard, in order.
    if len(ledgers) != 1 or events[-1] != ledgers[0]:
        raise Failure(f"one ledger was expected, at the end: {ledgers}")
    ledger = ledgers[0].fields["record"]
    lost = sum(ledger["dropped"].values()) + ledger["truncated"] + ledger["unparsed"]
    if lost or ledger["received"] != ledger["delivered"] or ledger["received"] != len(events) - 1:
        raise Failure(f"{len(events) - 1} events on the stream, but the ledger tells: {ledger}")
    return ledger["received"]
