"""Lambda Managed Instances: AWS's own code posts the telemetry, and a Kinesis that is not ours takes it."""
import collections
import concurrent.futures
import contextlib
import json
import time
import uuid

import emulator
import function
import kinesis_local
import ministack
import stream
from certificate import Certificate
from check import Check
from emulator import HERE, Emulator
from kinesis_local import KinesisLocal
from ministack import Ministack
from process import Failure, wait_until
from proxy import Proxy

CONCURRENCY = 8
# Events that tell of one extension, so that the witness is not told quite the same as the extension under test.
OF_ONE_EXTENSION = {"platform.extension", "platform.telemetrySubscription"}


def delivers(setup, service, change=None, files=(), settings=None, says=None):
    """Everything that Lambda posts while many invocations overlap is on the stream of `service`, once.

    `settings` makes the extension's environment from the service, where that is not the service's own. `says` is in the one line that
    the extension says; without it there is none.
    """
    with contextlib.ExitStack() as stack:
        aws = stack.enter_context(service)
        environment = settings(aws) if settings else aws.settings()
        lambda_ = stack.enter_context(start(setup, {**environment, **(change or {})}, [HERE / "witness.py"], files))
        requests = invoke_many(lambda_, 12)
        printed = {line for request in requests for line in function.lines(request)}
        # Managed Instances are never frozen, and may live for weeks: telemetry has to leave without a SHUTDOWN.
        wait_until("what the function printed reaches the stream by age", 5, lambda: printed <= logs(aws))
        # These are still in the queue when SHUTDOWN comes.
        requests += invoke_many(lambda_, 4)
        took = lambda_.shut_down()
        events = stream.read(aws.kinesis)
    if took > 2:
        raise Failure(f"shutdown took {took:.2f} s of the 2 s that Lambda grants")
    check_exit(lambda_)
    stream.check_event_ids(events)
    check_requests(events, requests)
    check_witness(events, lambda_.stage / "tmp/witness")
    received = stream.check_ledger(events)
    said = lambda_.said()
    if len(said) != (says is not None) or not all(says in line for line in said):
        raise Failure(f"the extension had something else to say than {says}: {said}")
    return f"events in {received} out {len(events) - 1}"


def refused(setup, code, action="kinesis:PutRecords", change=None, certificate=None, settings=None):
    """A stream out of reach because of `code`: one line that says so, an unharmed function, and an orderly end."""
    with contextlib.ExitStack() as stack:
        aws = stack.enter_context(Ministack(setup, certificate))
        environment = settings(aws) if settings else aws.settings(action)
        lambda_ = stack.enter_context(start(setup, {**environment, **(change or {})}))
        requests = invoke_many(lambda_, 4)
        wait_until("the extension says what is wrong", 5, lambda_.said)
        requests += invoke_many(lambda_, 4)
        # Longer than events may wait for company: the extension fails once more, and has said so already.
        time.sleep(1.3)
        said = lambda_.said()
        lambda_.shut_down()
        events = stream.read(aws.kinesis)
    check_exit(lambda_)
    if events:
        raise Failure(f"{len(events)} events on a stream out of reach")
    if len(said) != 1 or code not in said[0]:
        raise Failure(f"one line naming {code} was expected: {said}")
    # What was lost is told at the end, not for every request that failed.
    if len(lambda_.said()) > 3:
        raise Failure(f"too many lines: {lambda_.said()}")
    return f"invocations in {len(requests)} answered {len(requests)}, events out 0"


def start(setup, environment, also=(), files=()):
    return Emulator(setup, {"AWS_LAMBDA_MAX_CONCURRENCY": str(CONCURRENCY), **environment}, also, files)


def invoke_many(lambda_, count):
    """Invokes several times at once, with request ids of our own choosing, which are returned."""
    requests = [str(uuid.uuid4()) for _ in range(count)]
    with concurrent.futures.ThreadPoolExecutor(CONCURRENCY // 2) as pool:
        answers = list(pool.map(lambda request: invoke(lambda_, request), requests))
    for request, answer in zip(requests, answers):
        if not isinstance(answer, dict) or answer.get("requestId") != request:
            raise Failure(f"the function answered {answer} to {request}")
    if max(answer["running"] for answer in answers) < 2:
        raise Failure("no two invocations overlapped")
    return requests


def invoke(lambda_, request):
    """Invokes once, again while all workers of the function are busy or not up yet: that leaves no trace in the telemetry."""
    answers = []

    def taken():
        answers.append(lambda_.invoke({"sleep": 0.05}, request))
        return answers[-1] != {"errorType": "Runtime.Unavailable"}

    wait_until("the function is ready", 10, taken)
    return answers[-1]


def logs(aws):
    """What the function printed, as the stream tells it. On Managed Instances every log record is a string."""
    events = stream.read(aws.kinesis)
    return {event.fields["record"] for event in events if event.fields["type"] == "function"}


def check_exit(lambda_):
    if lambda_.exits() != [("exited", "0")]:
        raise Failure(f"the extension should end by itself with 0: {lambda_.exits()}")


def check_requests(events, requests):
    """Of every invocation: each line that it printed, its start and its report, all once."""
    for request in requests:
        mine = [event.fields for event in events if request in event.line]
        found = collections.Counter(fields["record"] for fields in mine if fields["type"] == "function")
        if found != collections.Counter(function.lines(request)):
            raise Failure(f"printed lines of {request} on the stream: {found}")
        for kind in ("platform.start", "platform.report"):
            of_kind = [fields for fields in mine if fields["type"] == kind]
            if len(of_kind) != 1 or of_kind[0]["record"]["requestId"] != request or of_kind[0]["requestId"] != request:
                raise Failure(f"{kind} of {request}: {of_kind}")


def check_witness(events, bodies):
    """What the witness was told is on the stream: time, type and record, byte for byte."""
    told = collections.Counter()
    for body in sorted(bodies.iterdir()):
        text, position = body.read_text(), 0
        for event in json.loads(text):
            record, position = stream.raw_record(text, position)
            told[event["time"], event["type"], record] += event["type"] not in OF_ONE_EXTENSION
    delivered = collections.Counter(
        (event.fields["time"], event.fields["type"], stream.raw_record(event.line)[0])
        for event in events
        if event.fields["type"] not in OF_ONE_EXTENSION | {stream.LEDGER}
    )
    if told - delivered or delivered - told:
        differ = [list((told - delivered).elements())[:3], list((delivered - told).elements())[:3]]
        raise Failure("not as the witness was told, for example:\n  told   {}\n  stream {}".format(*differ))


def by_ministack(setup):
    return delivers(setup, Ministack(setup))


def by_arm64(setup):
    # An emulated processor is slow, and Lambda's emulator locks up when a body comes while the one before is still being taken.
    return delivers(setup, Ministack(setup), {"KINESIS_TELEMETRY_BUFFER_TIMEOUT_MS": "500"})


def by_tls(setup):
    certificate = Certificate(setup.work)
    # As a function brings its own roots: in its code.
    change = {"AWS_CA_BUNDLE": f"/var/task/{certificate.authority.name}"}
    return delivers(setup, Ministack(setup, certificate), change, [certificate.authority])


def aggregated(setup):
    return delivers(setup, Ministack(setup), {"KINESIS_TELEMETRY_RECORD": "kpl"})


def zipped(setup):
    return delivers(setup, Ministack(setup), {"KINESIS_TELEMETRY_RECORD": "kpl", "KINESIS_TELEMETRY_COMPRESSION": "gzip"})


def by_kinesis_local(setup):
    return delivers(setup, KinesisLocal(setup))


def in_cbor(setup):
    return delivers(setup, KinesisLocal(setup), {"KINESIS_TELEMETRY_WIRE": "cbor"})


def without_cbor(setup):
    return delivers(setup, Ministack(setup), {"KINESIS_TELEMETRY_WIRE": "cbor"}, says="does not take CBOR")


def wrong_secret(setup):
    return refused(setup, "InvalidSignatureException", change={"AWS_SECRET_ACCESS_KEY": "of another key"})


def wrong_token(setup):
    return refused(setup, "UnrecognizedClientException", change={"AWS_SESSION_TOKEN": "of another session"})


def no_permission(setup):
    return refused(setup, "AccessDeniedException", action="kinesis:GetRecords")


def unknown_authority(setup):
    return refused(setup, "UnknownIssuer", certificate=Certificate(setup.work))


def by_proxy(setup):
    """No endpoint is set: the true host name, its certificate, and the way there only through the proxy."""
    certificate = Certificate(setup.work)
    with Proxy(ministack.PORT) as proxy:

        def settings(aws):
            # For the clients of this program, not for the extension.
            environment = aws.settings()
            del environment["AWS_ENDPOINT_URL_KINESIS"]
            return {**environment, "HTTPS_PROXY": proxy.url, "AWS_CA_BUNDLE": f"/var/task/{certificate.authority.name}"}

        result = delivers(setup, Ministack(setup, certificate), None, [certificate.authority], settings)
        if set(proxy.asked) != {f"kinesis.{stream.REGION}.amazonaws.com:443"}:
            raise Failure(f"the proxy was asked for {set(proxy.asked)}")
    return result


def assuming(aws, action):
    """The function's own role may only assume another one, which may do `action`."""
    writer = aws.role("writer", action, aws.arn)
    environment = aws.settings("sts:AssumeRole", writer)
    return {**environment, "KINESIS_TELEMETRY_ROLE_ARN": writer, "AWS_ENDPOINT_URL_STS": aws.url}


def by_role(setup):
    return delivers(setup, Ministack(setup), settings=lambda aws: assuming(aws, "kinesis:PutRecords"))


def role_refused(setup):
    """The function's role may write to the stream, but may not assume the role that it is told to."""

    def settings(aws):
        writer = aws.role("writer", "kinesis:PutRecords", aws.arn)
        return {**aws.settings(), "KINESIS_TELEMETRY_ROLE_ARN": writer, "AWS_ENDPOINT_URL_STS": aws.url}

    return refused(setup, "AssumeRole.AccessDenied", settings=settings)


MINISTACK = [emulator.NAME, ministack.NAME]
AGGREGATED = [*MINISTACK, "aws-kinesis-agg 1.2.3"]
CHECKS = [
    Check(
        "managed-instances",
        MINISTACK,
        "telemetry of overlapping invocations, once and byte for byte, by age and at shutdown, under a role",
        by_ministack,
    ),
    Check(
        "kinesis-local",
        [emulator.NAME, kinesis_local.NAME],
        "the same on another Kinesis, the stream named by its ARN, with nulls in the answers",
        by_kinesis_local,
        ["npm", "node"],
    ),
    Check("cbor", [emulator.NAME, kinesis_local.NAME], "the same in CBOR, there and back", in_cbor, ["npm", "node"]),
    Check("cbor-refused", MINISTACK, "the same where nobody takes CBOR: one line, and JSON", without_cbor),
    Check("kpl", AGGREGATED, "the same as KPL aggregates, taken apart by the consumers' own library", aggregated),
    Check("kpl-gzip", AGGREGATED, "the same with each event compressed", zipped),
    Check("tls", MINISTACK, "the same over TLS, with AWS_CA_BUNDLE", by_tls, ["openssl"]),
    Check(
        "unknown-authority",
        MINISTACK,
        "a certificate that nobody vouches for: one line, the function unharmed",
        unknown_authority,
        ["openssl"],
    ),
    Check(
        "proxy",
        MINISTACK,
        "the same with the true host name, certificate and signature, through a CONNECT proxy",
        by_proxy,
        ["openssl"],
    ),
    Check("assume-role", MINISTACK, "the same with the keys of a role that STS gives for the function's own", by_role),
    Check("role-refused", MINISTACK, "a role that may not be assumed: one line, the function unharmed", role_refused),
    Check("arm64", [*MINISTACK, emulator.QEMU], "the same with the arm64 binary", by_arm64, [emulator.QEMU], arm64=True),
    Check("wrong-secret", MINISTACK, "a refused signature: one line, the function unharmed", wrong_secret),
    Check("wrong-token", MINISTACK, "a refused session token: one line, the function unharmed", wrong_token),
    Check("no-permission", MINISTACK, "a role without kinesis:PutRecords: one line, the function unharmed", no_permission),
]
