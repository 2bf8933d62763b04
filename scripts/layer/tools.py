"""Where things lie, and the tools that the scripts install under target/tools: pinned by checksum, and only once."""
import fcntl
import importlib.machinery
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = "kinesis-telemetry-extension"
# Where each layer's zip, folder and SBOM go.
LAYERS = REPOSITORY / "target/layer"
TOOLS = REPOSITORY / "target/tools"
# Lambda's names for its architectures, and Rust's for what runs on them.
TARGETS = {"x86_64": "x86_64-unknown-linux-musl", "arm64": "aarch64-unknown-linux-musl"}


def venv(name, requirements=None):
    """The `bin` of a virtual environment with requirements/<name>.txt; a changed pin installs anew."""
    requirements = requirements or pathlib.Path(__file__).with_name("requirements") / f"{name}.txt"
    place, stamp = TOOLS / name, TOOLS / name / "stamp"
    wanted = f"{sys.version}\n{requirements.read_text()}"
    TOOLS.mkdir(parents=True, exist_ok=True)
    # Two scripts may want the same tool at once.
    with open(TOOLS / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(place, ignore_errors=True)
            quietly([sys.executable, "-m", "venv", place])
            pip = [place / "bin/python", "-m", "pip", "install", "--require-hashes", "--only-binary", ":all:"]
            quietly([*pip, "--requirement", requirements])
            stamp.write_text(wanted)
    return place / "bin"


def quietly(command):
    """Runs an installer, and shows its output only when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900)
    if done.returncode:
        fail(f"{' '.join(map(str, command))} failed:\n{done.stdout}")


def output(*command, **options):
    """What a command prints; ends the script with what it complains of when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, **options)
    if done.returncode:
        fail(f"`{' '.join(map(str, command))}` failed:\n{done.stderr.strip()}")
    return done.stdout


def script(name):
    """scripts/NAME as a module: it has no ending by which Python would know it."""
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(REPOSITORY / "scripts" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def fail(sentence):
    raise SystemExit(f"{os.path.basename(sys.argv[0])}: {sentence}")
