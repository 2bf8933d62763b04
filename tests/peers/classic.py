"""Classic Lambda: the emulator's Telemetry API answers 202 and sends nothing, so the extension idles, and lives on."""
import re

import emulator
from check import Check
from emulator import Emulator
from process import Failure

# No stream, and no network that could reach one: an idle extension has no use for either.
SETTINGS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "example",
    "AWS_REGION": "us-east-1",
    "KINESIS_TELEMETRY_STREAM": "telemetry",
}


def lives_on(setup):
    """Invocations, a time-out with a reset, and the end: as many processes as Lambda started, each leaving in time."""
    with Emulator(setup, {"AWS_LAMBDA_FUNCTION_TIMEOUT": "1", **SETTINGS}) as lambda_:
        # The emulator takes one invocation at a time in this mode; a second at once kills it.
        invoke(lambda_, 3)
        timed_out = lambda_.invoke({"sleep": 30})
        if timed_out != "Task timed out after 1.00 seconds":
            raise Failure(f"the function was to time out: {timed_out}")
        invoke(lambda_, 3)
        took = lambda_.shut_down()
    log = lambda_.output()
    if took > 2:
        raise Failure(f"shutdown took {took:.2f} s of the 2 s that Lambda grants")
    check_processes(log, "INVOKE SHUTDOWN", ["Timeout", "SandboxTerminated"])
    one_line_each(lambda_, 2, "202")
    return "invocations in 7 answered 7"


def bad_settings(setup):
    """A setting that is wrong and one that is missing: both in one report, and a function that knows nothing of it."""
    environment = {**SETTINGS, "KINESIS_TELEMETRY_STREAM": "", "KINESIS_TELEMETRY_FLUSH": "banana"}
    with Emulator(setup, environment) as lambda_:
        invoke(lambda_, 3)
        lambda_.shut_down()
    # Not for INVOKE: an extension without work has no reason to be in the way.
    check_processes(lambda_.output(), "SHUTDOWN", ["SandboxTerminated"])
    one_line_each(lambda_, 1, "KINESIS_TELEMETRY_STREAM", "KINESIS_TELEMETRY_FLUSH", "banana")
    return "invocations in 3 answered 3"


def invoke(lambda_, times):
    for _ in range(times):
        answer = lambda_.invoke({})
        if not isinstance(answer, dict) or answer.get("running") != 1:
            raise Failure(f"the function answered {answer}")


def check_processes(log, events, reasons):
    """One process of the extension for each reset or shutdown in `reasons`, registered for `events`, none killed."""
    registered = re.findall(r"registered, subscribed to \[(.*)\]", log)
    if registered != [events] * len(reasons):
        raise Failure(f"{len(reasons)} registrations for {events} were expected: {registered}")
    resets = re.findall(r"Reset initiated: (\w+)", log)
    if resets != reasons:
        raise Failure(f"resets by Lambda: {resets}, expected {reasons}")
    ended = re.findall(r"Handling termination for extension-", log)
    killed = re.findall(r".*Sending SIGKILL to extension-.*", log)
    if len(ended) != len(reasons) or killed:
        raise Failure(f"{len(ended)} of {len(reasons)} processes ended, and not all by themselves: {killed}")


def one_line_each(lambda_, processes, *parts):
    """Each process said one line, with all of `parts` in it, and nothing else."""
    said = lambda_.said()
    if len(said) != processes or not all(part in line for line in said for part in parts):
        raise Failure(f"{processes} lines with {parts} were expected: {said}")


CHECKS = [
    Check(
        "classic",
        [emulator.NAME],
        "no Telemetry API: idle with one line through invocations, a time-out's reset, and SHUTDOWN",
        lives_on,
    ),
    Check("bad-settings", [emulator.NAME], "wrong settings in one report, the function unharmed", bad_settings),
]
