"""How a check says that it failed or could not run, and how checks run programs."""
import subprocess

from tools import REPOSITORY


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
