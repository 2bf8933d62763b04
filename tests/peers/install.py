"""Installs the peers under target/: pinned, checked, and only once.

Uses pip and npm as they are set up on the machine. What is installed carries a stamp with its pins; a changed pin installs anew.
"""
import hashlib
import pathlib
import platform
import shutil
import subprocess
import sys
import zipfile

import harness  # which knows where the tools are
import tools
from tools import quietly

HERE = pathlib.Path(__file__).resolve().parent

# AWS's runtime emulator comes inside a wheel; it prints no version of its own.
RIE_WHEEL = "aws-sam-cli==1.170.0"
RIE_SHA256 = {
    "x86_64": "6b1e686e62ab2baf5759c412c4864276ef2a88b094fca53ec070637ccba9b9a5",
    "arm64": "ec2e5d09633d853834c008b1ef264bf834b258a94d551d2b2074966494b39a21",
}


def machine():
    """This machine's architecture, as the emulator's files name it."""
    return {"aarch64": "arm64", "amd64": "x86_64"}.get(platform.machine(), platform.machine())


def venv(name):
    """A virtual environment with requirements/<name>.txt; each peer has its own, for their pins contradict each other."""
    return tools.venv(f"peers-{name}", HERE / "requirements" / f"{name}.txt")


def kinesis_local(root):
    """kinesis-local, by npm with a lock file that holds its checksum; the folder to start it in."""
    place, source = root / "kinesis-local", HERE / "requirements/kinesis-local"
    program, lock = place / "node_modules/kinesis-local", "package-lock.json"
    if not (program / "stamp").exists() or (program / "stamp").read_text() != (source / lock).read_text():
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(source, place)
        quietly(["npm", "ci", "--prefix", place, "--ignore-scripts", "--no-audit", "--no-fund"])
        shutil.copy(source / lock, program / "stamp")
    return program


def rie(root, arch):
    """The runtime emulator's program for `arch`."""
    program = root / "rie" / f"aws-lambda-rie-{arch}"
    if not program.exists() or sha256(program) != RIE_SHA256[arch]:
        download = root / "rie" / "download"
        quietly([sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", download, RIE_WHEEL])
        (wheel,) = download.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            program.write_bytes(archive.read(f"samcli/local/rapid/{program.name}"))
        shutil.rmtree(download)
        if sha256(program) != RIE_SHA256[arch]:
            program.unlink()
            raise SystemExit(f"peers: {program.name} in {RIE_WHEEL} is not the one that was pinned")
    program.chmod(0o755)
    return program


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
