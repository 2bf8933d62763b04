"""The manual's commands publish the layers: the aws CLI, and moto in AWS's place."""
import base64
import hashlib
import json
import os
import re
import socket
import subprocess
import time
import pathlib

import layers
from harness import Failure, expect, run
from tools import LAYERS, PROGRAM, REPOSITORY, TARGETS, venv

REQUIREMENTS = pathlib.Path(__file__).with_name("requirements") / "aws.txt"


def manual_publishes_both_layers():
    layers.built()
    # Not `aws`, which is what scripts/attach and others install: each would take the other's away.
    tools = venv("aws-cli", REQUIREMENTS)
    page = (REPOSITORY / ".github/docs/deploy.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    commands = [
        command for block in blocks for command in block.replace("\\\n", " ").split("\n") if command.startswith("aws lambda publish-layer-version")
    ]
    expect(commands, "deploy.md shows no publish-layer-version")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "PATH": f"{tools}{os.pathsep}{os.defpath}", "LANG": "C.UTF-8", "HOME": str(LAYERS), "AWS_PAGER": "",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "eu-west-1", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
    }
    log = LAYERS / "moto.log"
    with open(log, "wb") as output:
        moto = subprocess.Popen([tools / "moto_server", "-H", "127.0.0.1", "-p", str(port)], env=environment, stdout=output, stderr=output)
    try:
        listening(port, moto, log)
        published = [json.loads(run("bash", "-c", command, env=environment, timeout=60)) for command in commands]
    finally:
        moto.kill()
        moto.wait()
    seen = {}
    for layer in published:
        (arch,) = layer["CompatibleArchitectures"]
        packed = (LAYERS / f"{PROGRAM}-{arch}.zip").read_bytes()
        ours = base64.b64encode(hashlib.sha256(packed).digest()).decode()
        expect(layer["Content"]["CodeSha256"] == ours, f"{arch}: {layer['Content']} is not the zip's {ours}")
        expect(layer["Content"]["CodeSize"] == len(packed), f"{arch}: {layer['Content']}")
        seen[arch] = layer["LayerVersionArn"]
    expect(seen.keys() == TARGETS.keys(), f"published for {list(seen)} only")
    return ", ".join(seen.values())


def listening(port, process, log):
    end = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise Failure(f"moto does not listen:\n{log.read_text(errors='replace')[-2000:]}") from None
            time.sleep(0.1)


CHECKS = [manual_publishes_both_layers]
