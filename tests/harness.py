"""What the runners of checks in Python share: how a check fails or is skipped, the line that it prints, and namespaces to run it in.

A runner puts this folder on its path. Tools are installed by scripts/layer/tools.py, as those of the build are.
"""
import collections
import os
import pathlib
import signal
import subprocess
import sys
import time
import traceback

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "scripts/layer"))

# Where skipping would hide that nothing was tested.
MUST = os.environ.get("CI") == "true"
# No process outlives the first one of a PID namespace; nothing reaches another host from a network namespace.
NAMESPACES = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]


class Failure(Exception):
    """What was expected and did not happen."""


class Skip(Exception):
    """What this machine lacks for a check."""


def expect(condition, sentence):
    if not condition:
        raise Failure(sentence)


def run(*command, timeout=900, **options):
    """A program's output, from the repository's folder; its failure is the check's."""
    options = {"cwd": REPOSITORY, **options}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, **options)
    expect(done.returncode == 0, f"`{' '.join(map(str, command))}` ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done.stdout


def outcome(runner, name, check, explain=lambda: None):
    """Runs one check and prints its line: passed, failed or skipped. `explain` is called after a failure."""
    started = time.monotonic()
    try:
        result = check()
    except Skip as why:
        print(f"{'FAIL' if MUST else 'SKIP'}   {name}  *** {why} ***", flush=True)
        return "failed" if MUST else "skipped"
    except (Exception, SystemExit) as error:
        print(f"FAIL   {name}  {error}")
        if not isinstance(error, (Failure, SystemExit)):
            traceback.print_exc(file=sys.stdout)
        explain()
        sys.stdout.flush()
        return "failed"
    print(f"{runner}  {name}  {result}  ({time.monotonic() - started:.1f} s)", flush=True)
    return "passed"


def summary(outcomes):
    """Prints how many checks passed; the runner's exit status."""
    counted = collections.Counter(outcomes)
    skipped = f", {counted['skipped']} skipped" if counted["skipped"] else ""
    print(f"{counted['passed']} passed, {counted['failed']} failed{skipped}")
    return 1 if counted["failed"] else 0


def cannot(what, missing):
    """Says loudly that a runner could run nothing; its exit status."""
    print(f"\n*** {what} not run: {missing}. Nothing was proved. ***\n")
    print("0 passed, 1 failed" if MUST else "0 passed, 0 failed, 1 skipped")
    return 1 if MUST else 0


def no_namespaces(options):
    """Why there can be no such namespaces, or None."""
    probe = ["unshare", *options, "--", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=10)
    return f"`{' '.join(probe)}`: {done.stderr.strip()}" if done.returncode else None


def enter(options, command, environment):
    """Runs a command in namespaces of its own; the runner's exit status."""
    # `unshare` is deaf to SIGTERM and SIGINT, but takes everything with it when it is killed, by us or for want of us.
    inside = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", *options, "--", *map(str, command)], env=environment)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: inside.kill())
    return 0 if inside.wait() == 0 else 1
