"""AWS's runtime interface emulator (RIE), with the extension under test in /opt/extensions.

With AWS_LAMBDA_MAX_CONCURRENCY it is Lambda Managed Instances with a real Telemetry API; without, it is classic Lambda,
whose Telemetry API answers 202 and sends nothing.
"""
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import sys
import time

import function
import install
from process import Failure, Process, wait_until

HERE = pathlib.Path(__file__).resolve().parent
NAME = f"AWS runtime emulator of {install.RIE_WHEEL.replace('==', ' ')}"
EXTENSION = "kinesis-telemetry-extension"
QEMU = "qemu-aarch64-static"
INVOKE = ("127.0.0.1", 8080)
RUNTIME_API = ("127.0.0.1", 9001)
# What the emulator writes itself; every other line comes from the function or an extension.
OWN_LINE = re.compile(r"time=\d|\d\d \w{3} \d{4} |START |END |REPORT ")
# It tells how an extension's process ended only at debug level, and only Managed Instances tells the code.
EXITED = re.compile(rf"Name:extension-{EXTENSION} Cause:(\w+) Signo:\S+ ExitStatus:(\S+)")


class Emulator(Process):
    def __init__(self, setup, environment, also=(), files=()):
        """Starts it in namespaces of its own.

        `also`: further extensions, to be run beside the one under test. `files`: to be laid beside the function's code.
        """
        self.stage = setup.work / "stage"
        for place in ("opt/extensions", "var/task", "var/lang", "tmp"):
            (self.stage / place).mkdir(parents=True)
        (self.stage / "tmp").chmod(0o1777)
        self.install(setup)
        for extension in also:
            copy(extension, self.stage / "opt/extensions" / extension.stem)
        copy(HERE / "function.py", self.stage / "var/task/bootstrap")
        for file in files:
            copy(file, self.stage / "var/task" / file.name)
        os.link(install.rie(setup.root, install.machine()), self.stage / "rie")
        # The PID namespace makes sure that nothing outlives the emulator, however it ends.
        namespaces = ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
        options = ["--runtime-interface-emulator-address", "%s:%d" % INVOKE]
        options += ["--runtime-api-address", "%s:%d" % RUNTIME_API, "--log-level", "debug"]
        command = ["unshare", *namespaces, "--", "bash", HERE / "sandbox.sh", self.stage, sys.base_prefix, *options]
        # The emulator hands its own environment on to the extension: this is how settings get there.
        # The library path is Lambda's own; a Python with a shared library needs it.
        environment = {"HOME": "/tmp", "LD_LIBRARY_PATH": "/var/lang/lib", **environment}
        super().__init__(command, environment, setup.work / "emulator.log", INVOKE[1])

    def install(self, setup):
        """Puts the extension where Lambda looks for it; one for arm64 behind a script of that name, which runs it under qemu."""
        extension = self.stage / "opt/extensions" / EXTENSION
        if not setup.arm64:
            return copy(setup.binary, extension)
        (self.stage / "opt/arm64").mkdir()
        copy(setup.binary, self.stage / "opt/arm64" / EXTENSION)
        # With the name that Lambda started, as the extension registers under it.
        extension.write_text(f'#!/bin/sh\nexec {QEMU} -0 "$0" /opt/arm64/{EXTENSION} "$@"\n')
        extension.chmod(0o755)

    def invoke(self, event, request_id=None):
        """Invokes the function, and gives its answer: parsed, or as text where it is no JSON."""
        connection = http.client.HTTPConnection(*INVOKE, timeout=10)
        headers = {"X-Amzn-RequestId": request_id} if request_id else {}
        try:
            connection.request("POST", "/2015-03-31/functions/function/invocations", json.dumps(event), headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise Failure(f"an invocation got no answer: {error!r}") from error
        finally:
            connection.close()
        try:
            return json.loads(text)
        except ValueError:
            return text

    def shut_down(self):
        """The orderly end: SHUTDOWN to the extension, exit code 0. Returns how long it took, in seconds."""
        started = time.monotonic()
        # The emulator is the only child of `unshare`, which would not pass a signal on.
        children = pathlib.Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)
        # Lambda grants 2 s. Leaving the `with` block kills an emulator that hangs.
        wait_until("the emulator ends after SIGTERM", 5, lambda: self.child.poll() is not None)
        if self.child.returncode:
            raise Failure(f"the emulator ended with {self.child.returncode} after SIGTERM")
        return time.monotonic() - started

    def exits(self):
        """How each process of the extension under test ended: (cause, code). Managed Instances only."""
        return EXITED.findall(self.output())

    def said(self):
        """The lines that extensions wrote."""
        lines = self.output().split("\n")
        return [line for line in lines if line and function.MARK not in line and not OWN_LINE.match(line)]


def stuck_by_itself(work):
    """Whether the emulator of a check stopped in the init, by its own log.

    Seen once in hundreds of starts, on a busy machine: its first batch of telemetry finds the thread that sends it not ready yet, is sent
    to nobody, and the thread that reads events stops. Then the init never ends, though the extension and the runtime have called /next,
    and no invocation is taken.
    """
    log = work / "emulator.log"
    text = log.read_text(errors="replace") if log.exists() else ""
    came = ["could not send batch to telemetry Subscriber", "Received Extension /next", "INIT RTDONE"]
    never = ["sending batch to client", "Received Init Success"]
    return all(line in text for line in came) and not any(line in text for line in never)


def copy(source, target):
    """A copy that user 993 may read and run."""
    shutil.copyfile(source, target)
    target.chmod(0o755)
