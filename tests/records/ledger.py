"""Reads a stream, or a file of records, and says of each sandbox what is missing and what came twice.

Event ids of one process run from 1 without a gap: a number that is not there was lost, one that is there again came twice.
The ledger, a process's last event, must say the same. What KEEP has thinned out takes no number, and must not be there.
"""
import argparse
import collections
import datetime
import json
import pathlib
import re
import sys
import time

sys.dont_write_bytecode = True

SCRIPTS = pathlib.Path(__file__).resolve().parents[2] / "scripts"
sys.path += [str(SCRIPTS / "aws"), str(SCRIPTS / "decoder")]

import client as aws
import kinesis_telemetry
import stream
import timeline

LEDGER, SUMMARY = "kinesis-telemetry.ledger", "kinesis-telemetry.invocation"
# What Kinesis allows as a name, and ARNs.
STREAM = re.compile(r"[\w.-]{1,128}|arn:\S+", re.ASCII)
EVENT_ID = re.compile(r"([0-9a-f]{16})-(\d{1,20}|sandbox|ledger(?:-\d+)?)", re.ASCII)


def word(value):
    """A text of an event, fit to be printed; None for all else. On a stream, as in a file, there may be anything."""
    return "".join(each if each.isprintable() else "?" for each in value) if isinstance(value, str) else None


def number(value):
    """A number that is one: NaN is none, nor is what no event says."""
    return value if isinstance(value, (int, float)) and abs(value) < 2**64 else 0


class Process:
    """What one process of the extension has put on the stream."""

    def __init__(self):
        self.numbers = collections.Counter()
        self.ledger = None
        self.function = None
        self.bytes = 0
        # Request id -> the records of its summaries, and how many other events it has. Lambda tries again under the same id.
        self.summaries = collections.defaultdict(list)
        self.requests = collections.Counter()

    def gaps(self):
        """Runs of missing numbers below the highest, as (first, last); and what the ledger knows of beyond it."""
        runs, expected = [], 1
        for number in sorted(self.numbers):
            if number > expected:
                runs.append((expected, number - 1))
            expected = number + 1
        return runs

    def repeats(self):
        return {number: count for number, count in sorted(self.numbers.items()) if count > 1}

    def disagreement(self):
        """Where the ledger and the stream differ, in words; None where they agree."""
        if self.ledger is None:
            return "no ledger: the process was killed, or still runs"
        ledger = self.ledger
        try:
            dropped = sum(ledger["dropped"].values())
            delivered = ledger["delivered"] - ledger.get("adopted", 0)
            is_balanced = ledger["received"] == ledger["delivered"] + dropped + ledger["waiting"]
        except (AttributeError, KeyError, TypeError):
            return f"is none: {json.dumps(ledger)}"
        if not is_balanced:
            return f"its own balance is wrong: {json.dumps(ledger)}"
        # What a reset left in the spool, the next process sends under its old id; it may also have adopted some itself.
        least, most = (delivered, ledger["received"] + ledger["waiting"])
        found = len(self.numbers)
        if found < least:
            return f"says {delivered} delivered, but only {found} are here"
        if found > most:
            return f"says {ledger['received']} received, but {found} are here"
        if self.repeats() and not ledger.get("possibleDuplicates"):
            return "says nothing of repeats"
        return None

    def strays(self):
        """Requests that a summary calls thinned out, although events of theirs are here."""
        # Behind a gap nobody knows whose a line is: it is sent, whatever was chosen for the invocation that it names.
        dropped = (self.ledger or {}).get("platformDropped")
        if isinstance(dropped, dict) and dropped.get("records") or (self.ledger or {}).get("unparsed"):
            return []
        none_kept = [request for request, summaries in self.summaries.items() if not any(each["kept"] for each in summaries)]
        return [request for request in none_kept if request and self.requests[request]]

    def thinned(self):
        """What KEEP has left out, in words; None where it was not at work."""
        events = number((self.ledger or {}).get("thinned"))
        summaries = [each for those in self.summaries.values() for each in those]
        if not events and not summaries:
            return None
        reasons = collections.Counter(each["reason"] for each in summaries if each["kept"])
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        kept = f"; of {len(summaries)} invocations {reasons.total()} kept{f' ({why})' if why else ''}" if summaries else ""
        return f"{events} events{kept}"


# When an event happened, and when its record arrived, as far as that is known.
Moment = collections.namedtuple("Moment", "process time type request summary arrived")


class Account:
    def __init__(self):
        self.processes = collections.defaultdict(Process)
        self.records = self.events = self.strangers = 0
        self.moments = []

    def record(self, data, arrived=None):
        """Takes in one Kinesis record."""
        self.records += 1
        for event, line in kinesis_telemetry.decode(data):
            self.event(event, len(line), arrived)

    def event(self, event, length=0, arrived=None):
        match = EVENT_ID.fullmatch(str((event or {}).get("eventId")))
        if not match:
            self.strangers += 1
            return
        self.events += 1
        process, record = self.processes[match[1]], event.get("record")
        kind, request = word(event.get("type")), word(event.get("requestId"))
        process.function = process.function or word(event.get("functionName"))
        process.bytes += length
        summary = None
        if kind == SUMMARY and isinstance(record, dict):
            summary = {"kept": bool(record.get("kept")), "reason": word(record.get("reason")), "durationMs": number(record.get("durationMs"))}
        if match[2].isdigit():
            process.numbers[int(match[2])] += 1
            if summary:
                if process.numbers[int(match[2])] == 1:
                    process.summaries[request].append(summary)
            elif kind != "extension":
                # Logs of other extensions say the invocation in progress, and are always sent.
                process.requests[request] += 1
        elif kind == LEDGER and isinstance(record, dict):
            # The one with the reason is the last.
            if process.ledger is None or "shutdownReason" in record or "shutdownReason" not in process.ledger:
                process.ledger = record
        self.moments.append(Moment(match[1], event.get("time"), kind, request, summary, arrived))

    def report(self):
        """Lines for a person, and whether nothing is missing, repeated or in dispute."""
        good, out = True, []
        for name, process in sorted(self.processes.items()):
            gaps, repeats, why = process.gaps(), process.repeats(), process.disagreement()
            first, last = (min(process.numbers), max(process.numbers)) if process.numbers else ("-", "-")
            out.append(f"{name}  {process.function or '-'}  first {first}, last {last}, {sum(process.numbers.values())} events, {process.bytes} bytes")
            missing = sum(last - first + 1 for first, last in gaps)
            out.append(f"    gaps     {missing or 'none'}{listed(runs(gaps))}")
            out.append(f"    repeats  {len(repeats) or 'none'}{listed(f'{number} ({count} times)' for number, count in repeats.items())}")
            thinned, strays = process.thinned(), process.strays()
            if thinned:
                out.append(f"    thinned  {thinned}")
            if strays:
                out.append(f"    strays   events of {len(strays)} invocations that were thinned out{listed(strays)}")
            out.append(f"    ledger   {word(why) or 'agrees'}")
            good = good and not gaps and not repeats and not why and not strays
        out.append(f"{self.records} records, {self.events} events, {len(self.processes)} processes, {self.strangers} lines of others")
        out.append("nothing is missing" if good and self.processes else "something is to be looked at" if self.processes else "no events")
        return out, good and bool(self.processes)


def runs(gaps):
    return (str(first) if first == last else f"{first} to {last}" for first, last in gaps)


def listed(items, most=20):
    items = list(items)
    return f": {', '.join(items[:most])}{', ...' if len(items) > most else ''}" if items else ""


class Progress:
    """One line on stderr that is written over, twice a second at the most."""

    def __init__(self, unit):
        self.unit, self.last, self.started = unit, time.monotonic(), time.monotonic()

    def show(self, done, note=""):
        now = time.monotonic()
        if now - self.last >= 0.5:
            self.last = now
            print(f"\r{done} {self.unit}, {now - self.started:.0f} s{note}    ", end="", file=sys.stderr, flush=True)

    def end(self):
        if self.last - self.started >= 0.5:
            print(file=sys.stderr)


def read_stream(account, name, since):
    """Every record from the stream's oldest, or from `since` on, up to what is there now."""
    progress = Progress("records")
    source = stream.Stream(aws.client("kinesis"), name, since)
    for record in source.up_to_now():
        account.record(record["Data"], record.get("ApproximateArrivalTimestamp"))
        progress.show(account.records, f", {max(source.behind.values()):.0f} s behind")
    progress.end()


def moment(text):
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no time such as 2026-11-23T09:15:00Z") from None


def refuse(why):
    print(f"scripts/ledger: {why}", file=sys.stderr)
    return 1


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="scripts/ledger",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="AWS_ENDPOINT_URL and the other variables of AWS's tools are honoured. Exit code 0 when nothing is missing, repeated or in dispute.",
    )
    parser.add_argument("source", help="a stream's name or ARN; or a file: of records, of lines, or what scripts/demo --json printed")
    parser.add_argument("--since", type=moment, help="read the stream from this time on, such as 2026-11-23T09:15:00Z")
    parser.add_argument("--plot", type=pathlib.Path, metavar="OUT.svg", help="draw invocations and deliveries over time")
    chosen = parser.parse_args(arguments)
    account, path = Account(), pathlib.Path(chosen.source)
    if path.is_file():
        try:
            for data, arrived in stream.of_file(path.read_bytes()):
                account.record(data, arrived)
        except (OSError, stream.Broken) as error:
            return refuse(f"{chosen.source} can't be read: {error}")
    elif not STREAM.fullmatch(chosen.source):
        return refuse(f"there is no file {chosen.source}")
    else:
        aws.need_boto3()
        try:
            read_stream(account, chosen.source, chosen.since)
        except Exception as error:
            if type(error).__module__.split(".")[0] not in ("botocore", "boto3"):
                raise
            return refuse(f"there is no file {chosen.source}, and as a stream it can't be read: {aws.message(error)}")
    out, good = account.report()
    print("\n".join(out))
    if chosen.plot:
        try:
            chosen.plot.write_text(timeline.svg(account), encoding="utf-8")
        except OSError as error:
            return refuse(f"{chosen.plot} can't be written: {error.strerror}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
