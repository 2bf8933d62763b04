"""The checks of tests/records/run, in the Python that has the clients."""
import base64
import contextlib
import http.server
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
import xml.dom.minidom

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

import ledger
import unpack

SAMPLES = pathlib.Path(sys.argv.pop(1))
FORMS = [f"{record}-{compression}" for record in ("event", "lines", "kpl") for compression in ("none", "gzip")]
PAGE = (ROOT / ".github/docs/consumers.md").read_text()


def sample(form):
    return json.loads((SAMPLES / f"{form}.json").read_text())


def datas(form):
    return [base64.b64decode(record["Data"]) for record in sample(form)["Records"]]


def lambda_event(form):
    return {"Records": [unpack.as_lambda_has_it(base64.b64decode(r["Data"]), r["PartitionKey"]) for r in sample(form)["Records"]]}


class Kpl(unittest.TestCase):
    def test_the_standard_deaggregator_takes_it_apart_and_no_consumer_throws_it_away(self):
        for form in ("kpl-none", "kpl-gzip"):
            whole = sample(form)
            for record in whole["Records"]:
                data = base64.b64decode(record["Data"])
                self.assertTrue(data.startswith(b"\xf3\x89\x9a\xc2"))
                # Outer and inner key are one, and its MD5 lies in the shard that the record went to.
                self.assertEqual(unpack.inner_keys(data), {record["PartitionKey"]} if len(unpack.deaggregate(data)) else set())
                self.assertEqual(f"shardId-{unpack.shard(record['PartitionKey'], whole['Shards']):012}", record["ShardId"])
            inner = [unpack.deaggregate(data) for data in datas(form)]
            self.assertGreater(sum(map(len, inner)), 5 * len(inner))
            for event in (event for records in inner for event in records):
                self.assertEqual(len(list(unpack.lines(event))), 1)

    def test_its_encoder_makes_the_same_bytes(self):
        from aws_kinesis_agg.aggregator import RecordAggregator

        checked = 0
        for record in sample("kpl-none")["Records"]:
            data = base64.b64decode(record["Data"])
            aggregator = RecordAggregator()
            for event in unpack.deaggregate(data):
                aggregator.add_user_record(record["PartitionKey"], event)
            made = aggregator.clear_and_get()
            if made:
                self.assertEqual(made.get_contents()[2], data)
                checked += 1
        self.assertGreater(checked, 10)


class Forms(unittest.TestCase):
    def test_every_form_says_the_same(self):
        def told(form):
            account = ledger.Account()
            for data in datas(form):
                account.record(data)
            (process,) = account.processes.values()
            self.assertEqual((process.gaps(), process.repeats(), process.disagreement(), account.strangers), ([], {}, None, 0), form)
            records = [event["record"] for data in datas(form) for event, _ in unpack.events(data) if event["type"] == "function"]
            # The time at which the simulated Lambda wraps a line of text is another in each run.
            return sorted(str({**record, "timestamp": None}) for record in records)

        expected = told("event-none")
        self.assertEqual(len(expected), 20 * 10)
        for form in FORMS[1:]:
            self.assertEqual(told(form), expected, form)


class Consumers(unittest.TestCase):
    """The manual's consumers, on all forms that they say they read, with everything delivered twice."""

    def test_python(self):
        path = HERE / "consumers/consumer.py"
        for form in FORMS:
            module = importlib.util.module_from_spec(importlib.util.spec_from_file_location("consumer", path))
            module.__spec__.loader.exec_module(module)
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                module.handler(lambda_event(form), None)
                module.handler(lambda_event(form), None)
            self.assertEqual(said.getvalue().count(" function "), 20 * 10, form)

    @unittest.skipUnless(shutil.which("node") or os.environ.get("CI") == "true", "no node")
    def test_node(self):
        script = (
            f"import {{ handler }} from {json.dumps(str(HERE / 'consumers/consumer.mjs'))};"
            "import { readFileSync } from 'node:fs'; const event = JSON.parse(readFileSync(0)); await handler(event); await handler(event);"
        )
        for form in ("event-none", "event-gzip", "lines-none", "lines-gzip"):
            command = ["node", "--input-type=module", "--eval", script]
            done = subprocess.run(command, input=json.dumps(lambda_event(form)), text=True, capture_output=True, check=True, timeout=60)
            self.assertEqual(done.stdout.count(" function "), 20 * 10, form)

    def test_the_manual_shows_these(self):
        for name in ("consumer.py", "consumer.mjs"):
            self.assertIn((HERE / "consumers" / name).read_text(), PAGE)

    def test_the_athena_table_has_every_key_that_arrives(self):
        columns = set(re.findall(r"^  `(\w+)` ", PAGE[PAGE.index("CREATE EXTERNAL TABLE") :], re.M))
        keys = {key for data in datas("lines-none") for event, _ in unpack.events(data) for key in event}
        self.assertLessEqual({key.lower() for key in keys}, columns)


PROCESS, OTHER = "00000000000000aa", "00000000000000bb"


def event(number, process=PROCESS, **more):
    line = {"time": "2026-11-23T09:15:45.012Z", "type": "function", "record": f"line {number}", "eventId": f"{process}-{number}"}
    return json.dumps({**line, **more}).encode() + b"\n"


def ledger_event(received, delivered, duplicates=0, process=PROCESS, **dropped):
    record = {"received": received, "delivered": delivered, "waiting": 0, "possibleDuplicates": duplicates, "dropped": dropped, "shutdownReason": "x"}
    return event("ledger", process, type="kinesis-telemetry.ledger", record=record)


class Ledger(unittest.TestCase):
    def told(self, records, *arguments):
        """What scripts/ledger says of a file with these records, and its exit code."""
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "records"
            path.write_text("\n".join(base64.b64encode(data).decode() for data in records) + "\n")
            return self.run_on(str(path), *arguments)

    def run_on(self, *arguments):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = ledger.main(list(arguments))
        return said.getvalue(), code

    def test_nothing_is_missing_where_nothing_is(self):
        said, code = self.told([b"".join(map(event, range(1, 51))), event(51) + ledger_event(51, 51)])
        self.assertIn(f"{PROCESS}  -  first 1, last 51, 51 events", said)
        self.assertRegex(said, r"gaps +none\n +repeats +none\n +ledger +agrees\n(.*\n)+nothing is missing")
        self.assertEqual(code, 0)

    def test_planted_gaps_are_found_and_the_ledger_that_hides_them_is_told(self):
        kept = [n for n in range(1, 101) if n not in (7, 50, 51, 52)]
        records = [b"".join(map(event, kept))]
        said, code = self.told([*records, ledger_event(100, 96, queue=4)])
        self.assertRegex(said, r"gaps +4: 7, 50 to 52\n +repeats +none\n +ledger +agrees")
        self.assertEqual(code, 1)
        said, _ = self.told([*records, ledger_event(100, 100)])
        self.assertIn("ledger   says 100 delivered, but only 96 are here", said)

    def test_planted_repeats_are_found(self):
        records = [b"".join(map(event, [1, 2, 3, 2, 2, 3]))]
        said, code = self.told([*records, ledger_event(3, 3, duplicates=3)])
        self.assertRegex(said, r"gaps +none\n +repeats +2: 2 \(3 times\), 3 \(2 times\)\n +ledger +agrees")
        self.assertEqual(code, 1)
        self.assertIn("says nothing of repeats", self.told([*records, ledger_event(3, 3)])[0])

    def test_what_is_lost_at_the_end_shows_in_the_ledger_and_its_absence_is_told(self):
        said, _ = self.told([event(1) + event(2) + ledger_event(5, 5)])
        self.assertIn("says 5 delivered, but only 2 are here", said)
        self.assertIn("no ledger", self.told([event(1)])[0])
        self.assertIn("balance is wrong", self.told([event(1) + ledger_event(5, 1)])[0])
        self.assertEqual(self.told([b"nonsense\n"])[1], 1)

    def test_two_processes_are_told_apart(self):
        said, code = self.told([event(1) + event(1, OTHER) + event(3, OTHER), ledger_event(1, 1) + ledger_event(3, 2, process=OTHER, queue=1)])
        self.assertRegex(said, rf"{PROCESS} (.*\n) +gaps +none(.*\n)+{OTHER} (.*\n) +gaps +1: 2\n")
        self.assertEqual(code, 1)

    def test_every_kind_of_file_and_the_picture(self):
        with tempfile.TemporaryDirectory() as folder:
            path, picture = pathlib.Path(folder) / "file", pathlib.Path(folder) / "out.svg"
            lines = b"".join(map(event, range(1, 4))) + ledger_event(3, 3)
            demo = b"".join(b'{"shard":0,"request":1,"event":' + line + b"}\n" for line in lines.splitlines()) + b'{"summary":{}}\n'
            for content in (lines, demo, json.dumps({"Records": [{"Data": base64.b64encode(lines).decode()}]}).encode()):
                path.write_bytes(content)
                said, code = self.run_on(str(path), "--plot", str(picture))
                self.assertEqual((code, "first 1, last 3, 3 events" in said), (0, True), said)
                self.assertEqual(xml.dom.minidom.parse(str(picture)).documentElement.tagName, "svg")
            for form in FORMS:
                said, code = self.run_on(str(SAMPLES / f"{form}.json"), "--plot", str(picture))
                self.assertEqual(code, 0, said)
            self.assertEqual(picture.read_text().count("<rect "), 1 + 20)

    def test_a_stream_with_several_shards_and_pages(self):
        shards = [[b"".join(map(event, range(n, n + 10)))] for n in (1, 11, 21)] + [[event(31), ledger_event(31, 31)]]
        with fake_kinesis(shards) as url:
            environment = {**os.environ, "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1",
                           "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
            done = subprocess.run([ROOT / "scripts/ledger", "telemetry"], env=environment, capture_output=True, text=True, timeout=120)
        self.assertEqual((done.returncode, "first 1, last 31, 31 events" in done.stdout), (0, True), done.stdout + done.stderr)


@contextlib.contextmanager
def fake_kinesis(shards):
    """As much of Kinesis's reading side as the tool needs: one record a page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            action = self.headers["X-Amz-Target"].split(".")[1]
            body = json.dumps(getattr(self, action)(asked)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def ListShards(self, asked):
            ends = {"HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "0"}, "SequenceNumberRange": {"StartingSequenceNumber": "0"}}
            return {"Shards": [{"ShardId": f"shardId-{n:012}", **ends} for n in range(len(shards))]}

        def GetShardIterator(self, asked):
            return {"ShardIterator": f"{int(asked['ShardId'][-12:])}:0"}

        def GetRecords(self, asked):
            shard, at = map(int, asked["ShardIterator"].split(":"))
            page = shards[shard][at : at + 1]
            records = [{"Data": base64.b64encode(data).decode(), "PartitionKey": "k", "SequenceNumber": "1", "ApproximateArrivalTimestamp": 1.79e9} for data in page]
            return {"Records": records, "NextShardIterator": f"{shard}:{at + 1}", "MillisBehindLatest": 0}

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Cost(unittest.TestCase):
    def test_the_price_rules(self):
        loader = importlib.machinery.SourceFileLoader("cost", str(ROOT / "scripts/cost"))
        cost = importlib.util.module_from_spec(importlib.util.spec_from_loader("cost", loader))
        loader.exec_module(cost)
        # A million invocations of one record of 25 KB and one of a byte more: 3 payload units, 51 KB.
        row = cost.cost([25 * 1024, 25 * 1024 + 1], 1)
        self.assertEqual((row["records"], row["shards"]), (2e6, 15))
        self.assertAlmostEqual(row["provisioned"], 3 * 0.014 + 15 * 0.015)
        self.assertAlmostEqual(row["on_demand"], 51 * 1024 * 1e6 / 2**30 * 0.08 + 0.04)


if __name__ == "__main__":
    result = unittest.main(exit=False, verbosity=1).result
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed - len(result.skipped)} passed, {failed} failed" + (f", {len(result.skipped)} skipped" if result.skipped else ""))
    sys.exit(1 if failed or not result.testsRun else 0)
