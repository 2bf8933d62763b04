"""The way of somebody new: a fresh clone, a folder with a release, no compiler; install, attach, see events, detach, all as found before."""
import contextlib
import functools
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time

import tools
from emulation import ACCOUNT, Failure
from fleet import Fleet

# What scripts/deploy, attach and tail may find on the PATH, beside a Python that has boto3: no cargo, no rustc, no cc.
PROGRAMS = ("bash", "cat", "cksum", "cmp", "cp", "dirname", "env", "find", "grep", "mkdir", "node", "npm", "rm", "sh", "sort", "tee")
FUNCTIONS = ("walk-x86", "walk-arm", "walk-layered")
WAIT_SECONDS = 60


def release(setup):
    """A folder with what people download: the zips and their checksums."""
    folder = setup.work / "release"
    if not folder.exists():
        folder.mkdir()
        sums = ""
        for zipped in sorted(tools.LAYERS.glob("kinesis-telemetry-extension-*.zip")):
            shutil.copy(zipped, folder)
            sums += f"{hashlib.sha256(zipped.read_bytes()).hexdigest()}  {zipped.name}\n"
        (folder / "SHA256SUMS").write_text(sums)
    return folder


@contextlib.contextmanager
def served(folder):
    """The URL of a folder, on the loopback."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class Walk:
    """A fresh clone with the npm packages in it, which are not to be had without a network."""

    def __init__(self, setup):
        self.setup, self.clone, self.programs = setup, setup.work / "clone", setup.work / "programs"
        tools.clone(self.clone)
        self.cdk = self.clone / "target/cdk"
        self.cdk.mkdir(parents=True)
        (self.cdk / "node_modules").symlink_to(tools.CDK / "node_modules")
        self.programs.mkdir()
        for program in PROGRAMS:
            (self.programs / program).symlink_to(shutil.which(program))
        path = f"{self.programs}{os.pathsep}{setup.bin}"
        if found := [program for program in ("cargo", "rustc", "cc") if shutil.which(program, path=path)]:
            raise Failure(f"there is a compiler: {found}")
        self.environment, self.seconds = {"PATH": path}, {}

    def call(self, name, command, seconds=WAIT_SECONDS, may_fail=False, **variables):
        started = time.monotonic()
        said = self.setup.call(f"walk-{name}", command, seconds, may_fail, folder=self.clone, **self.environment, **variables)
        self.seconds[name] = time.monotonic() - started
        if "Traceback" in said:
            raise Failure(f"{' '.join(map(str, command))} says:\n{said}")
        return said

    def deploy(self, name, *arguments, may_fail=False, **variables):
        command = ["scripts/deploy", "--layers", release(self.setup), *arguments, *self.setup.tags()]
        return self.call(name, command, 180, may_fail, **variables)


def check(setup):
    walk, fleet = setup.walk, Fleet(setup.moto.client)
    address, state = setup.moto.variables(), setup.work / "walk-state"
    fleet.function(FUNCTIONS[0], "x86_64")
    fleet.function(FUNCTIONS[1], "arm64", variables={})
    fleet.function(FUNCTIONS[2], "x86_64", [fleet.layer("theirs-of-the-walk")])
    before = {name: whole(setup, name) for name in FUNCTIONS}

    attach = ["scripts/attach", "--state", state, *FUNCTIONS]
    said = walk.call("other-account", [*attach, "--account", "210987654321"], may_fail=True, **address)
    if "not of 210987654321: nothing was changed" not in said or {name: whole(setup, name) for name in FUNCTIONS} != before:
        raise Failure(f"--account of another account: {said}")
    said = walk.call("attach", [*attach, "--account", ACCOUNT, "--set", "FLUSH=end"], **address)
    if said.splitlines()[-1] != "3 attached":
        raise Failure(f"scripts/attach says:\n{said}")
    seen = events(setup, walk, address)
    said = walk.call("detach", ["scripts/attach", "--detach", "--state", state, *FUNCTIONS], **address)
    after = {name: whole(setup, name) for name in FUNCTIONS}
    if after != before:
        raise Failure(f"not as before:\n{json.dumps(before, indent=1, default=str)}\n{json.dumps(after, indent=1, default=str)}")
    if left := [str(file) for file in state.rglob("*.json")]:
        raise Failure(f"files left behind: {left}")
    fleet.delete(FUNCTIONS)
    steps = ", ".join(f"{name} {walk.seconds[name]:.0f} s" for name in ("deploy", "attach", "first event"))
    compiled = os.environ.get("DEPLOY_COMPILED_SECONDS")
    more = f"building the layers takes {compiled} s more" if compiled else "with a compiler: see --with-compiler"
    total = sum(walk.seconds[name] for name in ("deploy", "attach", "first event"))
    return f"{seen} events; from start to first event {total:.0f} s ({steps}), npm packages there; {more}"


def whole(setup, name):
    """Everything that AWS tells of a function and of its role's permissions, but when it was changed."""
    functions, iam = setup.moto.client("lambda"), setup.moto.client("iam")
    function = functions.get_function(FunctionName=name)
    del function["ResponseMetadata"], function["Configuration"]["LastModified"]
    role = function["Configuration"]["Role"].rpartition("/")[2]
    policies = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    return {**function, "policies": policies, "inline": iam.list_role_policies(RoleName=role)["PolicyNames"], "role": iam.get_role(RoleName=role)["Role"]}


def events(setup, walk, address):
    """The layer's program, with each function's own variables, in the simulated Lambda; scripts/tail shows what arrives, until Ctrl-C."""
    functions, stream = setup.moto.client("lambda"), setup.found.outputs["StreamArn"]
    variables = {name: functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"] for name in FUNCTIONS}
    fleet, program = setup.work / "fleet.json", setup.work / "program-of-the-walk"
    fleet.write_text(json.dumps(variables))
    program.write_bytes(setup.found.layers[tools.MACHINE])
    program.chmod(0o755)
    shown, said = setup.work / "tail.out", setup.work / "tail.err"
    environment = {**os.environ, **walk.environment, **address, "HOME": str(setup.work), "PYTHONUNBUFFERED": "1"}
    with open(shown, "wb") as out, open(said, "wb") as err:
        # Of another region than the stream: its ARN says where it is.
        command = [walk.clone / "scripts/tail", stream]
        tail = subprocess.Popen(command, env={**environment, "AWS_REGION": "eu-west-1"}, cwd=walk.clone, stdout=out, stderr=err, stdin=subprocess.DEVNULL)
        try:
            wait(tail, lambda: "reading " in said.read_text(), said)
            started = time.monotonic()
            test = "deployed::attached_functions_ship_their_telemetry_to_the_emulator"
            ran = setup.call("fleet", [setup.integration_tests, test, "--nocapture"], WAIT_SECONDS, KTE_BINARY=program, KTE_DEPLOYED_FLEET=fleet, KTE_DEPLOYED_ENDPOINT=address["AWS_ENDPOINT_URL"])
            if "test result: ok. 1 passed" not in ran:
                raise Failure(f"tests/it/deployed.rs was not run:\n{ran}")
            wait(tail, lambda: shown.stat().st_size, said)
            walk.seconds["first event"] = time.monotonic() - started
            wait(tail, lambda: all(f"hello from {name}" in shown.read_text() for name in FUNCTIONS), said)
            tail.send_signal(signal.SIGINT)
            code = tail.wait(timeout=WAIT_SECONDS)
        finally:
            tail.kill()
            tail.wait()
    if code or "events of 3 functions shown" not in said.read_text().splitlines()[-1]:
        raise Failure(f"scripts/tail ended with {code} and says:\n{said.read_text()}")
    # Without a name: the stream that scripts/deploy made.
    only = walk.call("tail", ["scripts/tail", "--since", "oldest", "--until-now", "--json", "--function", FUNCTIONS[1]], **address)
    found = [json.loads(line) for line in only.splitlines() if line.startswith("{")]
    logs = [event["record"] for event in found if event["type"] == "function"]
    if logs != [f"hello from {FUNCTIONS[1]}"] or {event.get("functionName") for event in found} != {FUNCTIONS[1]}:
        raise Failure(f"scripts/tail --function {FUNCTIONS[1]} shows:\n{only}")
    return len(shown.read_text().splitlines())


def wait(process, done, log):
    end = time.monotonic() + WAIT_SECONDS
    while not done():
        if process.poll() is not None or time.monotonic() > end:
            raise Failure(f"scripts/tail, {'ended' if process.poll() is not None else 'still waiting'}, says:\n{log.read_text()}")
        time.sleep(0.05)
