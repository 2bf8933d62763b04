"""Takes the Kinesis records of the telemetry extension apart into events, in all of its forms: lines, event, kpl; gzip or not.

Takes the records of a CloudWatch Logs subscription, too. Needs Python 3.9 or newer and nothing else: copy this file beside
your function.

    decoder = Decoder()
    for telemetry in decoder.lambda_event(event):
        print(telemetry["time"], telemetry["type"], telemetry["record"])
"""
import base64
import collections
import datetime
import hashlib
import json
import zlib

AGGREGATE = b"\xf3\x89\x9a\xc2"
GZIP = b"\x1f\x8b"
# A record of Kinesis has 10 MiB at most; what unpacks to more than this is no telemetry.
MOST_BYTES = 64 * 1024 * 1024


class Decoder:
    """Gives each event once: the delivery is at least once, and `eventId` tells a repeat."""

    def __init__(self, remember=100_000):
        """`remember`: how many event ids to keep. What comes again later than that is not seen as a repeat."""
        self.remember, self.seen = remember, collections.OrderedDict()
        self.repeats = self.strangers = 0

    def lambda_event(self, event):
        """The new events in what Lambda hands to a function on the stream, or on a subscription of CloudWatch Logs."""
        if "awslogs" in event:
            yield from self.events(base64.b64decode(event["awslogs"]["data"]))
        for record in event.get("Records", []):
            yield from self.events(base64.b64decode(record["kinesis"]["data"]))

    def events(self, data):
        """The new events in the data of one Kinesis record. What is no event is counted in `strangers`."""
        for event, _ in decode(data):
            if event is None:
                self.strangers += 1
            elif event.get("eventId") in self.seen:
                self.repeats += 1
            else:
                yield event
                # Only now: if it could not be handled, Lambda hands the batch over again, and it must not be left out.
                self.note(event.get("eventId"))

    def note(self, event_id):
        if event_id is not None:
            self.seen[event_id] = None
        if len(self.seen) > self.remember:
            self.seen.popitem(last=False)


def decode(data):
    """(event, line) for each event in the data of one Kinesis record; (None, line) for what is none. Repeats included."""
    for record in deaggregate(data):
        try:
            text = unzip(record) if record.startswith(GZIP) else record
        except ValueError:
            yield None, record
            continue
        for line in text.split(b"\n"):
            if line:
                yield from events_of(line)


def deaggregate(data):
    """The data of each record in an aggregate of the KPL; or the data as it is."""
    body = data[len(AGGREGATE) : -16]
    if not data.startswith(AGGREGATE) or hashlib.new("md5", body, usedforsecurity=False).digest() != data[-16:]:
        return [data]
    try:
        return [value for number, record in fields(body) if number == 3 for inner, value in fields(record) if inner == 3]
    except (ValueError, IndexError):
        return [data]


def fields(message):
    """(number, value) for each field of a protobuf message: an integer, or bytes."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        value, at = varint(message, at)
        if tag & 7 == 2:
            value, at = message[at : at + value], at + value
        elif tag & 7 != 0:
            raise ValueError("a field that no aggregate has")
        yield tag >> 3, value


def varint(message, at):
    """The integer that begins at `at`, and what comes behind it."""
    value = shift = 0
    while True:
        byte = message[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if not byte & 0x80:
            return value, at


def unzip(data):
    """Raises ValueError for what is no gzip, is cut, or unpacks to more than MOST_BYTES."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        text = unpacker.decompress(data, MOST_BYTES)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacker.eof:
        raise ValueError("cut, or too large")
    return text


def events_of(line):
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        # Also what is nested deeper than Python reads, as a function's log may be. An error would hold up the shard.
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("eventId", ""), str):
        yield None, line
    elif isinstance(event.get("logEvents"), list) and "messageType" in event:
        try:
            events = list(cloudwatch(event))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            events = [None]
        yield from ((each, line) for each in events)
    else:
        yield event, line


def cloudwatch(message):
    """The events of one record of a CloudWatch Logs subscription, with the keys that the extension gives them."""
    if message["messageType"] != "DATA_MESSAGE":
        return
    group = message.get("logGroup", "")
    function = group[len("/aws/lambda/") :] if group.startswith("/aws/lambda/") else None
    common = {"functionName": function, "accountId": message.get("owner"), "logGroup": group, "logStream": message.get("logStream")}
    for entry in message["logEvents"]:
        try:
            record = json.loads(entry["message"])
        except (ValueError, RecursionError):
            record = None
        time = datetime.datetime.fromtimestamp(entry["timestamp"] / 1000, datetime.timezone.utc)
        event = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03}Z",
            "type": "cloudwatch",
            "record": record if isinstance(record, dict) else entry["message"],
            "requestId": record.get("requestId") if isinstance(record, dict) else None,
            "eventId": str(entry["id"]),
            **common,
        }
        yield {key: value for key, value in event.items() if value is not None}
