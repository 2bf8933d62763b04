"""Processes of the peers: started with a clean environment and a log file, and always ended, by their own process id."""
import os
import socket
import subprocess
import time

from harness import Failure


def wait_until(what, seconds, probe):
    """Calls `probe` until it answers something true. Never waits longer than `seconds`."""
    end = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {seconds} s")
        time.sleep(0.02)


class Process:
    """One program that listens on `port`, with its output in `log`.

    `with` starts it, waits until it listens, and calls `prepare`; leaving the block kills what still runs.
    """

    def __init__(self, command, environment, log, port, folder=None):
        self.command = [str(part) for part in command]
        self.environment = {"PATH": os.defpath, "LANG": "C.UTF-8", **environment}
        self.log, self.port, self.folder = log, port, folder

    def __enter__(self):
        with open(self.log, "wb") as output:
            self.child = subprocess.Popen(
                self.command,
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(f"{self.log.stem} listens on port {self.port}", 20, self.listening)
            self.prepare()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(timeout=10)

    def prepare(self):
        """What is left to do once it listens."""

    def listening(self):
        """Whether it listens; fails at once when the program has ended by itself."""
        if self.child.poll() is not None:
            raise Failure(f"{self.log.stem} ended with {self.child.returncode}")
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        except OSError:
            return False

    def output(self):
        return self.log.read_text(errors="replace")
