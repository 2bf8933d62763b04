"""Reads records: of a stream, up to now or for ever, and of files in the forms in which people have them."""
import base64
import datetime
import json
import time

# GetRecords is allowed five times a second for each shard, and other readers want some of them.
PAUSE_SECONDS = 1.0
OLDEST = {"ShardIteratorType": "TRIM_HORIZON"}


class Stream:
    """A stream, with the place in each shard that was read up to."""

    def __init__(self, kinesis, name, since=None, latest=False):
        """From the oldest record on, from the time `since` on, or with `latest` from now on."""
        self.kinesis, self.name = kinesis, {"StreamARN": name} if name.startswith("arn:") else {"StreamName": name}
        start = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": since} if since else OLDEST
        if latest:
            # Where to go on when an iterator expires before it has given a record.
            start = {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": datetime.datetime.now(datetime.timezone.utc)}
        pages = kinesis.get_paginator("list_shards").paginate(**self.name)
        shards = [shard["ShardId"] for page in pages for shard in page["Shards"]]
        self.starts = dict.fromkeys(shards, start)
        first = {"ShardIteratorType": "LATEST"} if latest else start
        self.iterators = {shard: self.iterator(shard, first) for shard in shards}
        self.behind = dict.fromkeys(shards, 0.0)

    def iterator(self, shard, start):
        return self.kinesis.get_shard_iterator(**self.name, ShardId=shard, **start)["ShardIterator"]

    def up_to_now(self):
        """Every record up to what is there when its shard is read."""
        for shard in list(self.iterators):
            while self.iterators[shard]:
                records = self.read(shard)
                yield from records
                if not records and not self.behind[shard]:
                    break

    def for_ever(self):
        """Every record as it comes; None after each round, when there is time to say how far it is."""
        while True:
            open_shards = [shard for shard, iterator in self.iterators.items() if iterator]
            for shard in open_shards:
                yield from self.read(shard)
            yield None
            if not any(self.behind[shard] for shard in open_shards):
                time.sleep(PAUSE_SECONDS)

    def read(self, shard):
        """The next records of one shard. One that has ended is followed by its children."""
        try:
            # In another account, an iterator alone is not enough. GetRecords takes no name.
            arn = {key: value for key, value in self.name.items() if key == "StreamARN"}
            answer = self.kinesis.get_records(**arn, ShardIterator=self.iterators[shard])
        except self.kinesis.exceptions.ProvisionedThroughputExceededException:
            time.sleep(PAUSE_SECONDS / 2)
            return []
        except self.kinesis.exceptions.ExpiredIteratorException:
            # After five minutes without a call, such as those of a laptop that was closed.
            self.iterators[shard] = self.iterator(shard, self.starts[shard])
            return []
        if answer["Records"]:
            last = answer["Records"][-1]["SequenceNumber"]
            self.starts[shard] = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": last}
        self.behind[shard] = (answer.get("MillisBehindLatest") or 0) / 1000
        self.iterators[shard] = answer.get("NextShardIterator")
        for child in (each["ShardId"] for each in answer.get("ChildShards", [])):
            if child not in self.iterators:
                self.starts[child], self.behind[child] = OLDEST, 0.0
                self.iterators[child] = self.iterator(child, OLDEST)
        return answer["Records"]


class Broken(Exception):
    """A file that looks like records, and is none."""


def of_file(data):
    """(data, arrival) for each record in a file's bytes, in whatever form they are.

    What `aws kinesis get-records` prints, a Lambda function's event, one record in base64 a line, the lines of
    scripts/demo --json, the events themselves, or the bytes of one record.
    """
    if not data.lstrip().startswith(b"{"):
        try:
            records = [base64.b64decode(line, validate=True) for line in data.split()]
        except ValueError:
            records = [data]
        yield from ((record, None) for record in records)
        return
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError):
        whole = {}
    if isinstance(whole.get("Records"), list):
        yield from (of_record(number, record) for number, record in enumerate(whole["Records"], 1))
        return
    for line in filter(None, map(bytes.strip, data.split(b"\n"))):
        yield from of_line(line)


def of_record(number, record):
    """One of `Records`, as get-records and as a Lambda function's event have it."""
    try:
        kinesis = record.get("kinesis", {})
        arrival = record.get("ApproximateArrivalTimestamp") or kinesis.get("approximateArrivalTimestamp")
        return base64.b64decode(record.get("Data") or kinesis["data"], validate=True), arrival
    except (AttributeError, KeyError, TypeError, ValueError):
        raise Broken(f"record {number} has no data in base64") from None


def of_line(line):
    """The record that a line is, or holds."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        yield line, None
    elif isinstance(value.get("event"), dict):
        arrived = value.get("arrivedMs")
        is_time = isinstance(arrived, (int, float)) and abs(arrived) < 1e15
        yield json.dumps(value["event"]).encode(), arrived / 1000 if is_time else None
    elif isinstance(value.get("Data"), str):
        yield of_record(1, value)
    elif "summary" not in value:
        yield line, None
