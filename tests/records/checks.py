"""The checks of tests/records/run, in the Python that has the clients."""
import base64
import collections
import contextlib
import gzip
import hashlib
import http.server
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
import xml.dom.minidom

sys.dont_write_bytecode = True
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DECODER = ROOT / "scripts/decoder"
sys.path[:0] = [str(HERE), str(DECODER)]

import ledger
import unpack

import kinesis_telemetry

SAMPLES = pathlib.Path(sys.argv.pop(1))
FORMS = [f"{record}-{compression}" for record in ("event", "lines", "kpl") for compression in ("none", "gzip")]
PAGE = (ROOT / ".github/docs/consumers.md").read_text()


ATHENA_COLUMNS = dict(re.findall(r"^  `(\w+)` ([\w<,>]+?),?$", PAGE[PAGE.index("CREATE EXTERNAL TABLE") :], re.M))


def athena_row(event):
    """The columns of the manual's table, as OpenX's SerDe reads them from a line.

    Without regard to case it writes the keys of all objects in lower case, those in a `record` too; with it, a column whose key has capital
    letters needs a mapping. What is no text becomes JSON, in a column of text.
    """
    properties = dict(re.findall(r"'([\w.]+)' = '(\w+)'", PAGE[PAGE.index("SERDEPROPERTIES") :]))
    keys = {name: properties.get(f"mapping.{name}", name) for name in ATHENA_COLUMNS}
    if properties.get("case.insensitive", "true") == "true":
        event, keys = in_lower_case(event), {name: key.lower() for name, key in keys.items()}
    row = {name: event[key] for name, key in keys.items() if key in event}
    return {name: json.dumps(value) if ATHENA_COLUMNS[name] == "string" and not isinstance(value, str) else value for name, value in row.items()}


def in_lower_case(value):
    """The keys of all objects in it."""
    if isinstance(value, dict):
        return {key.lower(): in_lower_case(inner) for key, inner in value.items()}
    return list(map(in_lower_case, value)) if isinstance(value, list) else value


def sample(form):
    return json.loads((SAMPLES / f"{form}.json").read_text())


def datas(form):
    return [base64.b64decode(record["Data"]) for record in sample(form)["Records"]]


def lambda_event(form):
    return {"Records": [unpack.as_lambda_has_it(base64.b64decode(r["Data"]), r["PartitionKey"]) for r in sample(form)["Records"]]}


def loaded(path):
    """A new module out of a file."""
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location(path.stem, path))
    module.__spec__.loader.exec_module(module)
    return module


def node(script, value):
    """What a script prints; `input()` in it is `value`."""
    head = "import { readFileSync } from 'node:fs'; const input = () => JSON.parse(readFileSync(0));"
    command = ["node", "--input-type=module", "--eval", head + script]
    return subprocess.run(command, input=json.dumps(value), text=True, capture_output=True, check=True, timeout=60).stdout


NODE = unittest.skipUnless(shutil.which("node") or os.environ.get("CI") == "true", "no node")


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


class Wire(unittest.TestCase):
    def test_bodies_in_cbor_are_read_by_another_library_and_say_what_arrived(self):
        import cbor2

        for form in FORMS:
            whole = json.loads((SAMPLES / "cbor" / f"{form}.json").read_text())
            arrived = [(record["PartitionKey"], base64.b64decode(record["Data"])) for record in whole["Records"]]
            sent = []
            for body in map(base64.b64decode, whole["Bodies"]):
                stream = io.BytesIO(body)
                request = cbor2.load(stream)
                self.assertEqual((list(request), stream.read()), (["Records", "StreamName"], b""), form)
                self.assertEqual(request["StreamName"], "telemetry")
                for record in request["Records"]:
                    self.assertEqual(list(record), ["Data", "PartitionKey"])
                    self.assertIsInstance(record["Data"], bytes)
                    sent.append((record["PartitionKey"], record["Data"]))
            self.assertEqual(sent, arrived, form)
            self.assertGreater(len(arrived), 10)
            # No base64: what a body has beside data and keys is small.
            frames = sum(len(base64.b64decode(body)) for body in whole["Bodies"]) - sum(len(key) + len(data) for key, data in sent)
            self.assertLess(frames, 30 * len(sent) + 40 * len(whole["Bodies"]), form)


class Consumers(unittest.TestCase):
    """The manual's consumers, on all forms that they say they read, with everything delivered twice."""

    def test_python(self):
        for form in FORMS:
            module = loaded(HERE / "consumers/consumer.py")
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                module.handler(lambda_event(form), None)
                module.handler(lambda_event(form), None)
            self.assertEqual(said.getvalue().count(" function "), 20 * 10, form)

    @NODE
    def test_node(self):
        with tempfile.TemporaryDirectory() as folder:
            for file in (HERE / "consumers/consumer.mjs", DECODER / "kinesis-telemetry.mjs"):
                shutil.copy(file, folder)
            call = f"import {{ handler }} from '{folder}/consumer.mjs'; const event = input(); await handler(event); await handler(event);"
            for form in FORMS:
                self.assertEqual(node(call, lambda_event(form)).count(" function "), 20 * 10, form)

    def test_what_could_not_be_handled_comes_again(self):
        module = loaded(HERE / "consumers/consumer.py")
        handled, fail = [], [True]

        def handle(telemetry):
            if len(handled) == 3 and fail.pop():
                raise RuntimeError("a table that does not answer")
            handled.append(telemetry["eventId"])

        module.handle = handle
        batch = lambda_event("lines-none")
        with self.assertRaises(RuntimeError):
            module.handler(batch, None)
        fail.append(False)
        module.handler(batch, None)
        self.assertEqual(handled, [event["eventId"] for event in kinesis_telemetry.Decoder().lambda_event(batch)])

    def test_the_manual_shows_these(self):
        for name in ("consumer.py", "consumer.mjs", "dashboard.sql", "dashboard.py"):
            self.assertIn((HERE / "consumers" / name).read_text(), PAGE)

    def test_the_athena_table_has_every_key_that_arrives(self):
        for data in datas("lines-none"):
            for event, _ in unpack.events(data):
                self.assertEqual(len(athena_row(event)), len(event), event)


class Dashboard(unittest.TestCase):
    """The manual's answers from summaries, in SQL and in Python, over what KEEP=5% leaves of three functions, delivered twice."""

    def in_python(self):
        module = loaded(HERE / "consumers/dashboard.py")
        module.handler(lambda_event("dashboard"), None)
        module.handler(lambda_event("dashboard"), None)
        return {function: module.answers(summaries) for function, summaries in module.functions.items()}

    def in_sql(self):
        events = [event for data in datas("dashboard") for event, _ in unpack.events(data)]
        found = self.database(events).execute(self.statements()[1])
        names = [column[0] for column in found.description]
        return {row[0]: dict(zip(names[1:], row[1:])) for row in found.fetchall()}

    def statements(self):
        """The manual's view and query, for DuckDB."""
        import sqlglot

        text = (HERE / "consumers/dashboard.sql").read_text()
        for number in (each for tree in sqlglot.parse(text, read="athena") for each in tree.find_all(sqlglot.exp.Literal)):
            # Of decimals, Athena keeps as few digits as they have; DuckDB does not, so it would not show here.
            self.assertTrue(number.is_string or number.is_int or "e" in number.name, number)
        return sqlglot.transpile(text, read="athena", write="duckdb")

    def database(self, events):
        """One with the manual's view over events that arrived twice."""
        import duckdb

        types = {"string": "VARCHAR", "boolean": "BOOLEAN", "bigint": "BIGINT", "map<string,string>": "MAP(VARCHAR, VARCHAR)"}
        database = duckdb.connect()
        database.execute(f"CREATE TABLE telemetry ({', '.join(f'{name} {types[kind]}' for name, kind in ATHENA_COLUMNS.items())})")
        for row in [athena_row(event) for event in events] * 2:
            database.table("telemetry").insert([row.get(name) for name in ATHENA_COLUMNS])
        database.execute(self.statements()[0])
        return database

    def test_sql_and_python_give_the_same_numbers(self):
        python, sql = self.in_python(), self.in_sql()
        self.assertEqual(python.keys(), sql.keys())
        for function, answers in python.items():
            self.assertEqual(answers.keys(), sql[function].keys())
            for name, value in answers.items():
                self.assertAlmostEqual(value, sql[function][name], places=12, msg=f"{function} {name}")

    def test_the_view_knows_which_invocations_logged_an_error(self):
        logged = [{"INFO": 1}, {"ERROR": 1, "INFO": 1}, {}, {"FATAL": 1}, {"WARN": 1}]
        events = [{"type": ledger.SUMMARY, "eventId": f"{n}", "record": {"levels": levels}} for n, levels in enumerate(logged)]
        self.assertEqual(self.database(events).execute("SELECT count_if(loud) FROM invocations").fetchone()[0], 2)

    def test_they_are_exact_although_most_was_thinned_out(self):
        answers = self.in_python()
        self.assertEqual({function: each["invocations"] for function, each in answers.items()}, {"orders": 20, "billing": 20, "search": 20})
        self.assertEqual({function: each["error_percent"] for function, each in answers.items()}, {"orders": 0, "billing": 20, "search": 5})
        # The first of each process; a crash is followed by a new one, except the last, after which none was needed.
        self.assertEqual({function: each["cold_percent"] for function, each in answers.items()}, {"orders": 5, "billing": 20, "search": 10})
        whole = [event for data in datas("dashboard") for event, _ in unpack.events(data)]
        lines = sum(event["type"] == "function" for event in whole)
        kept = sum(event["type"] == "kinesis-telemetry.invocation" and event["record"]["kept"] for event in whole)
        self.assertEqual(lines, kept * 10)
        self.assertLess(kept, 60 / 2)

    def test_the_choice_is_the_one_that_the_manual_computes(self):
        page = (ROOT / ".github/docs/records.md").read_text()
        code = {}
        exec(re.search(r"```python\n(import hashlib.*?)```", page, re.S)[1], code)
        summaries = [event for data in datas("dashboard") for event, _ in unpack.events(data) if event["type"] == "kinesis-telemetry.invocation"]
        chosen = [event for event in summaries if event["record"]["reason"] == "share"]
        self.assertGreater(len(chosen), 30)
        for event in chosen:
            self.assertEqual(event["record"]["kept"], code["is_kept"](event.get("traceId") or event["requestId"], 0.05), event)

    def test_p99_is_the_value_that_99_percent_do_not_exceed(self):
        module = loaded(HERE / "consumers/dashboard.py")
        for count, expected in ((1, 1), (99, 99), (100, 99), (101, 100), (200, 198), (201, 199)):
            summaries = [{"durationMs": at, "status": "success"} for at in range(count, 0, -1)]
            self.assertEqual(module.answers(summaries)["p99_ms"], expected, count)
        self.assertEqual(module.answers([{"requestId": "unfinished"}])["error_percent"], 100)


def subscription(*messages, kind="DATA_MESSAGE"):
    """A record of a CloudWatch Logs subscription."""
    entries = [{"id": f"3949{number}", "timestamp": 1795425345012 + number, "message": text} for number, text in enumerate(messages)]
    whole = {"messageType": kind, "owner": "123456789012", "logGroup": "/aws/lambda/orders", "logStream": "s", "logEvents": entries}
    return gzip.compress(json.dumps(whole).encode())


class Decoders(unittest.TestCase):
    """scripts/decoder in both languages, against the de-aggregator that consumers use."""

    def both(self, records):
        """What Python's decoder gives, after Node's was found to give the same: events with None for what is none, and counts."""
        decoder = kinesis_telemetry.Decoder()
        once = [event for data in records for event in decoder.events(data)]
        every = [event for data in records for event, _ in kinesis_telemetry.decode(data)]
        if shutil.which("node") or os.environ.get("CI") == "true":
            script = (
                f"import {{ Decoder, decode }} from '{DECODER}/kinesis-telemetry.mjs'; const decoder = new Decoder();"
                "const records = input().map((text) => Buffer.from(text, 'base64'));"
                "const once = records.flatMap((data) => [...decoder.events(data)]), every = records.flatMap((data) => [...decode(data)]);"
                "console.log(JSON.stringify([once, every, decoder.repeats, decoder.strangers]));"
            )
            said = json.loads(node(script, [base64.b64encode(data).decode() for data in records]))
            self.assertEqual(said, json.loads(json.dumps([once, every, decoder.repeats, decoder.strangers])))
        return once, every, decoder

    def test_every_form_is_what_the_standard_deaggregator_makes_of_it(self):
        for form in FORMS:
            wanted = [event for data in datas(form) for event, _ in unpack.events(data)]
            once, every, decoder = self.both([*datas(form), *datas(form)])
            self.assertEqual((once, every, decoder.strangers), (wanted, wanted * 2, 0), form)
            self.assertEqual(decoder.repeats, len(wanted), form)

    def test_what_is_broken_is_counted_and_stops_nothing(self):
        aggregate, packed = datas("kpl-none")[0], datas("lines-gzip")[0]
        bomb = gzip.compress(bytes(kinesis_telemetry.MOST_BYTES + 1))
        wrong = b"\x03\xff\xff\xff\xff\xff"
        broken = [aggregate[:-1], packed[:-9], bomb, b"nonsense", b"[1]", b"\x1f\x8b", b"\xf3\x89\x9a\xc2", b"null",
                  b"\xf3\x89\x9a\xc2" + wrong + hashlib.md5(wrong).digest()]
        for data in broken:
            once, _, decoder = self.both([data, event(1)])
            self.assertEqual([each["eventId"] for each in once], [f"{PROCESS}-1"], data[:20])
            self.assertGreaterEqual(decoder.strangers, 1)

    def test_records_of_a_cloudwatch_subscription(self):
        text = '{"level":"ERROR","requestId":"b563","message":"no stock"}'
        once, _, _ = self.both([subscription("START", text), subscription(kind="CONTROL_MESSAGE")])
        common = {"functionName": "orders", "accountId": "123456789012", "logGroup": "/aws/lambda/orders", "logStream": "s"}
        first = {"time": "2026-11-23T09:15:45.012Z", "type": "cloudwatch", "record": "START", "eventId": "39490", **common}
        second = {"time": "2026-11-23T09:15:45.013Z", "type": "cloudwatch", "record": json.loads(text), "requestId": "b563", "eventId": "39491", **common}
        self.assertEqual(once, [first, second])
        direct = {"awslogs": {"data": base64.b64encode(subscription("START")).decode()}}
        self.assertEqual(list(kinesis_telemetry.Decoder().lambda_event(direct)), [first])

    def test_ids_are_forgotten_in_the_order_in_which_they_came(self):
        decoder = kinesis_telemetry.Decoder(remember=2)
        given = [each["eventId"] for data in map(event, (1, 2, 2, 3, 1)) for each in decoder.events(data)]
        self.assertEqual((given, decoder.repeats), ([f"{PROCESS}-{n}" for n in (1, 2, 3, 1)], 1))


class Tail(unittest.TestCase):
    def run_on(self, value, *arguments):
        done = subprocess.run([sys.executable, ROOT / "scripts/tail", "-", *arguments], input=value, capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode().splitlines(), done.stderr.decode()

    def test_every_form_on_standard_input(self):
        for form in FORMS:
            lines, said = self.run_on((SAMPLES / f"{form}.json").read_bytes())
            self.assertEqual(sum("  function  " in line for line in lines), 20 * 10, form)
            self.assertIn(f"{len(lines)} events of 1 functions shown", said)
            again, _ = self.run_on(json.dumps(lambda_event(form)).encode(), "--json")
            self.assertEqual([json.loads(line) for line in again], [each for data in datas(form) for each, _ in unpack.events(data)])

    def test_filters(self):
        node_text = "2026-11-23T09:15:45.012Z\t6d68ca91-49c9-448d-89b8-7ca3e6dc66aa\tERROR\tno stock\n"
        slim = {"time": "2026-11-23T09:15:45.012Z", "type": "function", "record": {"level": "WARN", "message": "slow"}}
        lines = [
            event(1, functionName="orders", requestId="aaaa-1", record=node_text),
            event(2, functionName="orders", requestId="bbbb-1", record={"level": "info", "message": "fine"}),
            event("sandbox", OTHER, type="kinesis-telemetry.sandbox", functionName="billing", record={}),
            json.dumps({**slim, "eventId": f"{OTHER}-1", "requestId": "cccc"}).encode() + b"\n",
            event(3, functionName="orders", type="platform.report", requestId="bbbb-1", record={"status": "timeout", "metrics": {"durationMs": 3000}}),
            # The end of this invocation did not come.
            event(4, functionName="orders", type="kinesis-telemetry.invocation", requestId="dddd", record={"events": 3}),
        ]
        expected = {
            ("--function", "billing"): 2, ("--function", "orders"): 4, ("--request", "bbbb"): 2, ("--level", "warn"): 4, ("--level", "FATAL"): 0,
            ("--level", "error", "--function", "orders", "--request", "aaaa-1"): 1,
        }
        for arguments, count in expected.items():
            self.assertEqual(len(self.run_on(b"".join(lines), *arguments)[0]), count, arguments)
        shown, _ = self.run_on(b"".join(lines))
        self.assertTrue(shown[0].endswith("  ERROR no stock"), shown[0])
        self.assertTrue(shown[1].endswith("  info fine"), shown[1])
        self.assertTrue(shown[4].endswith("  timeout, 3000 ms"), shown[4])

    def test_the_level_of_each_runtimes_lines(self):
        request = "6d68ca91-49c9-448d-89b8-7ca3e6dc66aa"
        for text in (
            f"2026-11-23T09:15:45.012Z\t{request}\tERROR\tno stock\n", f"[ERROR]\t2026-11-23T09:15:45.012Z\t{request}\tno stock\n",
            "[ERROR] ValueError: no stock", f"2026-11-23T09:15:45.012Z\t{request}\tfail\tno stock\n",
            f"2026-11-23 09:15:45 {request} ERROR Handler:24 - no stock\n", f"E, [2026-11-23T09:15:45.001234 #8] ERROR {request} -- : no stock\n",
        ):
            self.assertEqual(len(self.run_on(event(1, record=text), "--level", "ERROR")[0]), 1, text)
            self.assertEqual(len(self.run_on(event(1, record=text), "--level", "FATAL")[0]), 0, text)

    def test_a_summary_is_one_line(self):
        record = {"requestId": "r", "status": "success", "durationMs": 7.25, "billedDurationMs": 8, "maxMemoryUsedMB": 67, "events": 7, "kept": False, "reason": "share"}
        shown, _ = self.run_on(event(1, type="kinesis-telemetry.invocation", record=record))
        self.assertTrue(shown[0].endswith("  success, 7.25 ms, billed 8 ms, 67 MB, 7 events, thinned out, share"), shown[0])
        failed = {"requestId": "r", "status": "error", "errorType": "Runtime.ExitError", "events": 4, "kept": True, "reason": "failed"}
        shown, _ = self.run_on(event(1, type="kinesis-telemetry.invocation", record=failed), "--level", "error")
        self.assertTrue(shown[0].endswith("  error, Runtime.ExitError, 4 events, kept, failed"), shown)

    def test_control_characters_do_not_reach_the_terminal(self):
        shown, _ = self.run_on(event(1, functionName="a\x1b[2Jb", type="t\r", record="one\ntwo\x1b]0;x\x07"))
        self.assertEqual(len(shown), 1)
        self.assertTrue(shown[0].isprintable(), shown)

    def test_a_live_stream_with_a_shard_that_splits_and_an_iterator_that_expires(self):
        shards = [[event(1)], [event(2, OTHER)], [event(3)]]
        with fake_kinesis(shards, children={0: [2]}, expire={"1:0"}) as url:
            command = [sys.executable, ROOT / "scripts/tail", "telemetry", "--json", "--since", "oldest"]
            with subprocess.Popen(command, env=account(url), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tail:
                lines = sorted(json.loads(tail.stdout.readline())["eventId"] for _ in shards)
                tail.send_signal(signal.SIGINT)
                try:
                    rest, said = tail.communicate(timeout=60)
                finally:
                    tail.kill()
        self.assertEqual(lines, [f"{PROCESS}-1", f"{PROCESS}-3", f"{OTHER}-2"])
        self.assertEqual((tail.returncode, rest), (0, b""), said)
        self.assertIn(b"3 records, 3 events of 1 functions shown", said)

    def test_until_now_ends_by_itself_and_a_stream_that_is_not_there_is_one_line(self):
        with fake_kinesis([[event(1), event(2)]]) as url:
            done = subprocess.run([ROOT / "scripts/tail", "telemetry", "--until-now"], env=account(url), capture_output=True, text=True, timeout=60)
            self.assertEqual((done.returncode, len(done.stdout.splitlines())), (0, 2), done.stderr)
            done = subprocess.run([ROOT / "scripts/tail", "nowhere"], env=account(url), capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, len(done.stderr.splitlines())), (1, 1), done.stderr)
        self.assertIn("ResourceNotFoundException", done.stderr)


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

    def test_files_of_any_kind_are_answered_in_plain_words(self):
        ledger_of_strings = {"received": "x"}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "file"
            for content, said in (
                ('{"Records":[{}]}', "can't be read: record 1 has no data in base64"), ('{"Records":["x"]}', "has no data"),
                ('{"Records":[{"Data":"abc"}]}', "has no data"), ('{"Data":"abc"}', "has no data"), ("[1,2]", "no events"), ("", "no events"),
                (f'{{"event":{{"eventId":"{PROCESS}-1"}}}}', "first 1, last 1"),
                (event("ledger", type="kinesis-telemetry.ledger", record=ledger_of_strings).decode(), 'ledger   is none: {"received": "x"}'),
            ):
                path.write_text(content)
                done = subprocess.run([ROOT / "scripts/ledger", path], env=account(""), capture_output=True, text=True, timeout=60)
                self.assertEqual((done.returncode, said in done.stdout + done.stderr), (1, True), done.stdout + done.stderr)
                self.assertNotIn("Traceback", done.stderr)
                tailed = subprocess.run([sys.executable, ROOT / "scripts/tail", "-"], input=content, capture_output=True, text=True, timeout=60)
                self.assertNotIn("Traceback", tailed.stderr)
                self.assertEqual(tailed.returncode, 1 if "no data" in said else 0, tailed.stderr)
            path.write_bytes(event(1))
            for arguments, said in (([path, "--plot", f"{folder}/none/x.svg"], "can't be written: No such file"), (["s", "--since", "noon"], "noon is no time")):
                done = subprocess.run([ROOT / "scripts/ledger", *arguments], env=account(""), capture_output=True, text=True, timeout=60)
                self.assertIn(said, done.stderr)
                self.assertNotIn("Traceback", done.stderr)

    def test_whatever_stands_in_an_event_no_key_of_it_is_trusted(self):
        odd = [None, True, -1, 10**400, 1e300, float("nan"), float("inf"), "", "\ud800", "a\x1b[31m\n\0", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z",
               [], ["x"], {}, {"x": ["x"]}]
        keys = ["time", "type", "record", "requestId", "functionName"]
        events = [event(1, **{key: value}) for value in odd for key in keys]
        events += [event(1, type="kinesis-telemetry.invocation", record={key: value}) for value in odd for key in ("kept", "reason", "durationMs")]
        counts = ["received", "delivered", "waiting", "dropped", "thinned", "adopted", "platformDropped", "unparsed", "possibleDuplicates", "shutdownReason"]
        whole = json.loads(ledger_event(1, 1, queue=0))["record"]
        events += [event(1) + event("ledger", type="kinesis-telemetry.ledger", record={**whole, key: value}) for value in odd for key in counts]
        events += [json.dumps({"eventId": value, "type": "x"}).encode() for value in [*odd, f"{PROCESS}-{'9' * 5000}", f"{PROCESS}-\u0661"]]
        events += [b'{"eventId":"%s-1","record":%s}' % (PROCESS.encode(), b"[" * 9999 + b"]" * 9999)]
        subscriptions = [{"logEvents": [value]} for value in odd]
        subscriptions += [{"logEvents": [{"id": "x", "message": "x", "timestamp": 1, key: value}]} for value in odd for key in ("id", "message", "timestamp")]
        events += [json.dumps({"messageType": "DATA_MESSAGE", **each}).encode() for each in subscriptions]
        with tempfile.TemporaryDirectory() as folder:
            picture = pathlib.Path(folder) / "picture.svg"
            for data in events:
                said, _ = self.told([data, event(2)], "--plot", str(picture))
                self.assertRegex(said, r"^[ -~\n]*[12] records, ", data)
                xml.dom.minidom.parse(str(picture))
                decoder = kinesis_telemetry.Decoder()
                self.assertIn(f"{PROCESS}-2", [each.get("eventId") for one in (data, event(2)) for each in decoder.events(one)], data)

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
            demo = b"".join(b'{"shard":0,"request":1,"arrivedMs":1795425345100,"event":' + line + b"}\n" for line in lines.splitlines()) + b'{"summary":{}}\n'
            for content in (lines, demo, json.dumps({"Records": [{"Data": base64.b64encode(lines).decode()}]}).encode()):
                path.write_bytes(content)
                said, code = self.run_on(str(path), "--plot", str(picture))
                self.assertEqual((code, "first 1, last 3, 3 events" in said), (0, True), said)
                self.assertEqual(xml.dom.minidom.parse(str(picture)).documentElement.tagName, "svg")
                self.assertEqual("arrival on the stream" in picture.read_text(), content == demo)
            for form in FORMS:
                said, code = self.run_on(str(SAMPLES / f"{form}.json"), "--plot", str(picture))
                self.assertEqual(code, 0, said)
            self.assertEqual(bars(picture), {"kept": 20})

    def test_thinned_invocations_and_summaries(self):
        with tempfile.TemporaryDirectory() as folder:
            picture = pathlib.Path(folder) / "out.svg"
            said, code = self.run_on(str(SAMPLES / "dashboard.json"), "--plot", str(picture))
            self.assertEqual(code, 0, said)
            kept = sum(map(int, re.findall(r"invocations (\d+) kept", said)))
            self.assertEqual(sum(map(int, re.findall(r"of (\d+) invocations", said))), 60)
            self.assertRegex(said, r"thinned  \d+ events; of \d+ invocations \d+ kept \(.*\d failed.*\)\n")
            found = bars(picture)
            self.assertEqual(found["thinned"], 60 - kept)
            self.assertEqual(found["kept"], kept)
            self.assertIn('class="arrival"', picture.read_text())

    def test_the_picture_has_a_time_axis_and_rows_in_the_order_of_time(self):
        with tempfile.TemporaryDirectory() as folder:
            path, picture = pathlib.Path(folder) / "file", pathlib.Path(folder) / "out.svg"
            # The process whose name comes first begins last.
            path.write_bytes(event(1, time="2026-11-23T09:16:44.000Z") + event(1, OTHER, time="2026-11-23T09:15:46.000Z"))
            self.run_on(str(path), "--plot", str(picture))
            drawn = picture.read_text()
            self.assertLess(drawn.index(OTHER), drawn.index(PROCESS))
            self.assertEqual(re.findall(r">(\d\d:\d\d:\d\d)<", drawn), [f"09:{at // 60:02}:{at % 60:02}" for at in range(15 * 60 + 50, 16 * 60 + 41, 10)])
            self.assertNotIn("arrival on the stream", drawn)

    def test_events_of_what_a_summary_calls_thinned_out_are_told(self):
        summary = event(1, type="kinesis-telemetry.invocation", requestId="r1", record={"kept": False, "reason": "share"})
        ledger_of_two = ledger_event(2, 2)
        self.assertEqual(self.told([summary + event(2, requestId="r2") + ledger_of_two])[1], 0)
        # Logs of extensions belong to no invocation.
        self.assertEqual(self.told([summary + event(2, type="extension", requestId="r1") + ledger_of_two])[1], 0)
        said, code = self.told([summary + event(2, requestId="r1") + ledger_of_two])
        self.assertIn("strays   events of 1 invocations that were thinned out: r1", said)
        self.assertEqual(code, 1)
        # Behind a gap it is not known whose they are.
        gap = event("ledger", type="kinesis-telemetry.ledger", record={
            "received": 2, "delivered": 2, "waiting": 0, "possibleDuplicates": 0, "dropped": {}, "platformDropped": {"records": 1, "bytes": 9}})
        self.assertEqual(self.told([summary + event(2, requestId="r1") + gap])[1], 0)

    def test_a_retry_under_the_same_request_id_is_an_invocation_of_its_own(self):
        def of(number, second, kind, record):
            return event(number, time=f"2026-11-23T09:15:{second}.000Z", type=kind, requestId="r1", record=record)

        tries = [
            of(1, 10, "platform.start", {}), of(2, 11, "platform.runtimeDone", {"status": "error"}),
            of(3, 12, "kinesis-telemetry.invocation", {"kept": True, "reason": "failed", "durationMs": 1000}),
            of(4, 20, "kinesis-telemetry.invocation", {"kept": False, "reason": "share", "durationMs": 1000}),
        ]
        with tempfile.TemporaryDirectory() as folder:
            picture = pathlib.Path(folder) / "out.svg"
            said, code = self.told([b"".join(tries) + ledger_event(4, 4)], "--plot", str(picture))
            self.assertEqual(bars(picture), {"kept": 1, "thinned": 1})
        self.assertIn("of 2 invocations 1 kept (1 failed)", said)
        self.assertNotIn("strays", said)
        self.assertEqual(code, 0)

    def test_a_name_that_is_neither_file_nor_stream_is_one_line(self):
        with fake_kinesis([[event(1)]]) as url:
            for name in ("typo.jsonl", "./typo.jsonl"):
                done = subprocess.run([ROOT / "scripts/ledger", name], env=account(url), capture_output=True, text=True, timeout=120)
                self.assertEqual((done.returncode, done.stdout, len(done.stderr.splitlines())), (1, "", 1), done.stderr)
                self.assertIn(f"there is no file {name}", done.stderr)

    def test_a_stream_with_several_shards_and_pages(self):
        shards = [[b"".join(map(event, range(n, n + 10)))] for n in (1, 11, 21)] + [[event(31), ledger_event(31, 31)]]
        with fake_kinesis(shards) as url:
            done = subprocess.run([ROOT / "scripts/ledger", "telemetry"], env=account(url), capture_output=True, text=True, timeout=120)
        self.assertEqual((done.returncode, "first 1, last 31, 31 events" in done.stdout), (0, True), done.stdout + done.stderr)


def bars(picture):
    """How many bars of each kind are in a picture, without those of its legend."""
    drawn = collections.Counter(rect.getAttribute("class") for rect in xml.dom.minidom.parse(str(picture)).getElementsByTagName("rect"))
    return {kind: drawn[kind] - 1 for kind in ("kept", "thinned") if drawn[kind] > 1}


def account(url):
    """The environment in which AWS's tools call the endpoint at `url`, with the Python that runs this first on the path."""
    return {
        **os.environ, "PATH": f"{pathlib.Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }


class Refused(Exception):
    """An error of Kinesis, by its code."""


@contextlib.contextmanager
def fake_kinesis(shards, children={}, expire=()):
    """As much of Kinesis's reading side as the tools need: one record a page.

    `children`: shard -> the shards that follow it when it has ended; they are not listed. `expire`: iterators that are refused, once.
    """
    expired = set(expire)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            action = self.headers["X-Amz-Target"].split(".")[1]
            try:
                status, value = 200, getattr(self, action)(asked)
            except Refused as refused:
                status, value = 400, {"__type": str(refused), "message": "refused"}
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def ListShards(self, asked):
            if asked["StreamName"] != "telemetry":
                raise Refused("ResourceNotFoundException")
            later = {child for listed in children.values() for child in listed}
            ends = {"HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "0"}, "SequenceNumberRange": {"StartingSequenceNumber": "0"}}
            return {"Shards": [{"ShardId": f"shardId-{n:012}", **ends} for n in range(len(shards)) if n not in later]}

        def GetShardIterator(self, asked):
            return {"ShardIterator": f"{int(asked['ShardId'][-12:])}:{asked.get('StartingSequenceNumber', '0')}"}

        def GetRecords(self, asked):
            iterator = asked["ShardIterator"]
            if iterator in expired:
                expired.remove(iterator)
                raise Refused("ExpiredIteratorException")
            shard, at = map(int, iterator.split(":"))
            page = shards[shard][at : at + 1]
            records = [{"Data": base64.b64encode(data).decode(), "PartitionKey": "k", "SequenceNumber": str(at + 1), "ApproximateArrivalTimestamp": 1.79e9} for data in page]
            answer = {"Records": records, "MillisBehindLatest": 0}
            if shard in children and at + len(page) == len(shards[shard]):
                ends = {"ParentShards": [f"shardId-{shard:012}"], "HashKeyRange": {"StartingHashKey": "0", "EndingHashKey": "0"}}
                return {**answer, "ChildShards": [{"ShardId": f"shardId-{child:012}", **ends} for child in children[shard]]}
            return {**answer, "NextShardIterator": f"{shard}:{at + len(page)}"}

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
    def setUp(self):
        loader = importlib.machinery.SourceFileLoader("cost", str(ROOT / "scripts/cost"))
        self.cost = importlib.util.module_from_spec(importlib.util.spec_from_loader("cost", loader))
        loader.exec_module(self.cost)

    def test_the_price_rules(self):
        # A million invocations of one record of 25 KB and one of a byte more: 3 payload units, 51 KB.
        row = self.cost.cost([25 * 1024, 25 * 1024 + 1], 1)
        self.assertEqual((row["records"], row["shards"]), (2e6, 15))
        self.assertAlmostEqual(row["provisioned"], 3 * 0.014 + 15 * 0.015)
        self.assertAlmostEqual(row["on_demand"], 51 * 1024 * 1e6 / 2**30 * 0.08 + 0.04)
        self.assertAlmostEqual(row["advantage"], 51 * 1024 * 1e6 / 2**30 * 0.032)

    def test_the_time_that_lambda_bills(self):
        # Held for 40 ms, with 1 ms of a whole CPU: a fourteenth of one takes 13.8 ms for that.
        added, price = self.cost.billed(40, 1, 128)
        self.assertAlmostEqual(added, 40 + 1769 / 128)
        self.assertAlmostEqual(price, added / 1000 / 8 * 1e6 * 0.0000166667)
        self.assertEqual(self.cost.billed(40, 1, 3538)[0], 41)

    def test_what_cloudwatch_counts(self):
        whole = [event for data in datas("event-none") for event, _ in unpack.events(data)]
        messages = self.cost.log_events(whole)
        self.assertEqual([len(each) for each in messages], [10 + 2] * 20)
        size, behind = self.cost.cloudwatch([["x" * 74, "é" * 37]])
        self.assertAlmostEqual(size, 200 * 1e6 / 2**30)
        self.assertEqual(behind["records"], 1e6)
        (first,) = kinesis_telemetry.Decoder().events(self.cost.subscription(["hello"]))
        self.assertEqual((first["type"], first["record"], first["functionName"]), ("cloudwatch", "hello", "orders"))
        self.assertAlmostEqual(self.cost.break_even(0.7, 0.015, 0.1), 25_000)

    def test_every_price_in_the_manual_has_its_date_and_what_is_not_verified_says_so(self):
        page = (ROOT / ".github/docs/records.md").read_text()
        for name, price in self.cost.PRICES.items():
            (row,) = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
            self.assertIn(f"| {self.cost.amount(price)} | {price.date} | {price.source}", row)
            self.assertEqual("(not verified)" in row, not price.verified, name)


if __name__ == "__main__":
    result = unittest.main(exit=False, verbosity=1).result
    failed = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - failed - len(result.skipped)} passed, {failed} failed" + (f", {len(result.skipped)} skipped" if result.skipped else ""))
    sys.exit(1 if failed or not result.testsRun else 0)
