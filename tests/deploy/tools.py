"""Installs what the checks need under target/deploy: pinned, only once; and builds the CDK app with its tests there.

Uses pip and npm as they are set up on the machine. The npm packages are those of `scripts/deploy`, in target/cdk.
"""
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
ROOT = REPOSITORY / "target/deploy"
CDK = REPOSITORY / "target/cdk"
LAYERS = REPOSITORY / "target/layer"
APP = ROOT / "app"
MACHINE = {"aarch64": "arm64", "amd64": "x86_64"}.get(platform.machine(), platform.machine())
# Not beside the sources.
BYTECODE = {"PYTHONPYCACHEPREFIX": str(ROOT / "pycache")}


def venv(name="venv", requirements=HERE / "requirements.txt"):
    """A virtual environment, usually the one with moto, boto3 and cfn-lint; its programs."""
    place = ROOT / name
    stamp, wanted = place / "stamp", f"{sys.version}\n{requirements.read_text()}"
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(place, ignore_errors=True)
        quietly([sys.executable, "-m", "venv", place])
        # Bytecode is made when it is needed: most of it never is.
        pip = [place / "bin/python", "-m", "pip", "install", "--no-compile", "--require-hashes", "--only-binary", ":all:"]
        quietly([*pip, "--requirement", requirements])
        stamp.write_text(wanted)
    return place / "bin"


def checkov():
    """checkov has an environment of its own: its pins contradict moto's."""
    return venv("checkov", HERE / "requirements-checkov.txt")


def npm():
    """Tools that are npm packages, with a lock file: jsii's compiler, osls, and readers of Terraform's and Docker's files."""
    source, place = HERE / "npm", ROOT / "npm"
    stamp, lock = place / "node_modules/installed", source / "package-lock.json"
    if not stamp.exists() or stamp.read_text() != lock.read_text():
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(source, place)
        quietly(["npm", "ci", "--prefix", place, "--ignore-scripts", "--no-audit", "--no-fund"])
        shutil.copy(lock, stamp)


def preparation():
    """The npm packages and the layers, by way of `scripts/deploy`."""
    quietly([REPOSITORY / "scripts/deploy", "--prepare"])


def app():
    """The CDK app and the tests of its template, side by side; not compiled yet."""
    shutil.rmtree(APP, ignore_errors=True)
    ignored = shutil.ignore_patterns("node_modules", "dist", "cdk.out")
    shutil.copytree(REPOSITORY / "scripts/cdk", APP, ignore=ignored)
    for test in HERE.glob("*.test.ts"):
        shutil.copy(test, APP)
    (APP / "node_modules").symlink_to(CDK / "node_modules")
    return APP


def clone(place):
    """The repository as somebody has just cloned it: nothing is built or installed."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(REPOSITORY, place, symlinks=True, ignore=lambda folder, names: {"target", ".git", "node_modules"} & set(names))


def seconds_to_build():
    """How long scripts/build-layer takes in a fresh clone; with Zig there, whose download depends on the network alone."""
    place = ROOT / "compiled"
    clone(place)
    (place / "target").mkdir()
    (place / "target/tools").symlink_to(REPOSITORY / "target/tools")
    started = time.monotonic()
    quietly([place / "scripts/build-layer", "all"], seconds=3600)
    shutil.rmtree(place)
    return time.monotonic() - started


def integration_tests():
    """The program with the integration tests, which has the simulated Lambda in it."""
    command = ["cargo", "test", "--locked", "--no-run", "--test", "it", "--message-format", "json"]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=900)
    if done.returncode:
        raise SystemExit(f"deploy: {' '.join(command)} failed:\n{done.stderr}")
    messages = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    programs = [message["executable"] for message in messages if message.get("executable") and message["target"]["name"] == "it"]
    return pathlib.Path(programs[-1])


def quietly(command, seconds=900):
    """Runs an installer, and shows its output only when it fails."""
    done = subprocess.run(command, cwd=REPOSITORY, env=clean(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds)
    if done.returncode:
        raise SystemExit(f"deploy: {' '.join(map(str, command))} failed:\n{done.stdout}")


def clean():
    """This process's environment without anybody's AWS account in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
