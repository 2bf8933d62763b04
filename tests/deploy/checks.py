"""The checks, in the order in which they run. Those from `deployment` on share one emulator and one deployed stack."""
import collections
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import zipfile

import attached
import imaged
import packed
import published
import readback
import recipes
import tools
import walked
from emulation import Failure, Moto

# `name`: to ask for it alone. `proves`: in a few words. `run`: takes the setup, raises Failure, returns what was found.
# `needs`: the check that must have passed before, for this one goes on with what it left.
Check = collections.namedtuple("Check", "name proves run needs", defaults=[None])

TAGS = {"CostCenter": "4711", "Environment": "test", "Application": "telemetry", "Owner": "somebody"}
MACHINE = tools.MACHINE


class Setup:
    """What the checks share. `with` ends the emulator."""

    def __init__(self, binary, integration_tests):
        self.binary, self.integration_tests = binary, integration_tests
        self.bin = tools.ROOT / "venv/bin"
        self.work, self.templates = tools.ROOT / "work", tools.ROOT / "templates"
        self.moto = self.found = self.code = self.walk = None
        self.stack = contextlib.ExitStack()
        for folder in (self.work, self.templates):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def call(self, name, command, seconds, may_fail=False, folder=None, **variables):
        """Runs a program, keeps what it says in a log, and gives that; fails where it does, unless it may."""
        environment = {**os.environ, "HOME": str(self.work), **{key: str(value) for key, value in variables.items()}}
        log = self.work / f"{name}.log"
        with open(log, "wb") as output:
            child = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder or tools.REPOSITORY,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            try:
                code = child.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                raise Failure(f"{name}: not within {seconds} s; see {log}")
            finally:
                child.kill()
                child.wait(timeout=10)
        said, self.code = log.read_text(errors="replace"), code
        if code and not may_fail:
            raise Failure(f"{name} ended with {code}:\n" + "\n".join(said.splitlines()[-40:]))
        return said

    def deploy_script(self, name, *arguments, may_fail=False, **variables):
        return self.call(name, [tools.REPOSITORY / "scripts/deploy", *arguments, *self.tags()], 180, may_fail, **variables)

    def tags(self):
        return [word for tag, value in TAGS.items() for word in ("-c", f"{tag}={value}")]

    def read_back(self):
        return readback.Readback(self.moto.client, TAGS, tools.LAYERS)


def types(setup):
    """The app and its tests, with everything that TypeScript can be strict about."""
    app = tools.app()
    setup.call("types", [app / "node_modules/.bin/tsc"], 60, folder=app)
    return f"{len(list(app.glob('*.ts')))} files"


def node_tests(setup, name, **variables):
    said = setup.call(name, ["node", "--test", "--test-reporter", "spec", f"dist/{name}.test.js"], 120, folder=tools.APP, **variables)
    passed = int(re.search(r"^ℹ pass (\d+)$", said, re.MULTILINE)[1])
    if not passed:
        raise Failure(f"{name}: no test was run")
    return f"{passed} tests"


def settings(setup):
    """With UPDATE_SETTINGS set it writes the table into scripts/cdk/settings.ts instead of comparing."""
    file = tools.REPOSITORY / "scripts/cdk/settings.ts"
    return node_tests(setup, "settings", KTE_BINARY=setup.binary, SETTINGS_FILE=file)


def template(setup):
    return node_tests(setup, "template", TEMPLATES=setup.templates, ACCEPTED=tools.HERE / "accepted-nag.json", RELEASE=walked.release(setup))


def offline(setup):
    """This program runs without a network; so does the synthesis, with layers as they will be deployed."""
    routes = pathlib.Path("/proc/net/route").read_text().splitlines()[1:]
    if routes:
        raise Failure(f"there is a network: {routes}")
    said = setup.deploy_script("offline", "--synth", "-c", "archive=true")
    if "written to" not in said:
        raise Failure(f"no template was written: {said}")
    written = list((tools.CDK / "cdk.out").glob("*.template.json"))
    for file in written:
        shutil.copy(file, setup.templates / f"synthesized-{file.name}")
    return f"{sum(file.stat().st_size for file in written)} bytes of template"


def release(setup):
    """What --layers takes and refuses: a folder, a URL, a tag; each compared with its checksums."""
    place, good = setup.work / "releases", walked.release(setup)
    bad = {name: place / name for name in ("half", "changed", "empty-zip", "no-sums")}
    for folder in bad.values():
        shutil.copytree(good, folder)
    (bad["half"] / "kinesis-telemetry-extension-arm64.zip").unlink()
    with open(bad["changed"] / "kinesis-telemetry-extension-arm64.zip", "ab") as file:
        file.write(b"x")
    (bad["no-sums"] / "SHA256SUMS").unlink()
    (bad["empty-zip"] / "SHA256SUMS").unlink()
    (bad["empty-zip"] / "kinesis-telemetry-extension-arm64.zip").write_bytes(b"PK")
    shutil.copytree(good, place / "good")
    program, layers = tools.REPOSITORY / "scripts/aws/release.py", setup.work / "unpacked"
    with walked.served(place) as url:
        taken = [good, bad["no-sums"], f"{url}/good"]
        for source in taken:
            shutil.rmtree(layers, ignore_errors=True)
            setup.call("release", ["python3", program, source, layers], 30)
            for architecture in readback.ARCHITECTURES:
                built = tools.LAYERS / architecture / readback.EXTENSION
                if (layers / architecture / readback.EXTENSION).read_bytes() != built.read_bytes():
                    raise Failure(f"{source} gives another program for {architecture} than was built")
        refused = {
            bad["half"]: "has no kinesis-telemetry-extension-arm64.zip",
            bad["changed"]: "is not the file of which SHA256SUMS has the checksum",
            bad["empty-zip"]: "is no layer of the extension",
            f"{url}/no-sums": "SHA256SUMS: HTTP Error 404",
            f"{url}/changed": "is not the file of which",
            "http://example.com/": "is no folder, no https URL, and no tag",
            "latest": "no tag such as v0.1.0",
        }
        for source, message in refused.items():
            said = setup.call("release", ["python3", program, source, layers], 30, may_fail=True)
            if message not in said or "Traceback" in said or not setup.code:
                raise Failure(f"--layers {source} says:\n{said}")
    origins = {"https://github.com/us/it.git": "https://github.com/us/it", "git@github.com:us/it.git": "https://github.com/us/it", "/srv/it": None}
    for origin, base in origins.items():
        clone = setup.work / "origin"
        shutil.rmtree(clone, ignore_errors=True)
        setup.call("git", ["git", "init", "--quiet", clone], 10)
        setup.call("git", ["git", "remote", "add", "origin", origin], 10, folder=clone)
        # There is no network here, and so no GitHub.
        said = setup.call("release", ["python3", program, "v0.1.0", layers], 30, may_fail=True, folder=clone)
        if (f"from {base}/releases/download/v0.1.0" if base else "names no repository on GitHub") not in said or "Traceback" in said:
            raise Failure(f"--layers v0.1.0 in a clone of {origin} says:\n{said}")
    return f"{len(taken)} taken, {len(refused)} refused, {len(origins)} origins"


def lint(setup):
    """W3005 is CDK's own: it says twice that a function waits for its role. Planted errors must be found, too."""
    templates = sorted(setup.templates.glob("*.json"))
    manual = "\n".join(page.read_text() for page in sorted((tools.REPOSITORY / ".github/docs").glob("*.md")))
    snippets = [snippet for snippet in re.findall(r"^```yaml\n(.*?)^```$", manual, re.MULTILINE | re.DOTALL) if "Resources:" in snippet]
    if not snippets:
        raise Failure("the manual shows no template")
    files = [setup.work / f"manual-{number}.yaml" for number in range(len(snippets))]
    for file, snippet in zip(files, snippets):
        file.write_text(snippet)
    bad = json.loads((setup.templates / "default.template.json").read_text())
    for resource in bad["Resources"].values():
        if resource["Type"] == "AWS::Lambda::Function":
            resource["Properties"]["Architectures"] = ["aarch64"]
        if resource["Type"] == "AWS::IAM::ManagedPolicy":
            resource["Properties"]["PolicyDocument"]["Statement"][0]["Action"] = "kinesis:PutRecordz"
    planted = setup.work / "planted.json"
    planted.write_text(json.dumps(bad))
    command = [setup.bin / "cfn-lint", "--ignore-checks", "W3005", "--format", "json", "--", *templates, *files, planted]
    said = setup.call("lint", command, 120, may_fail=True)
    try:
        findings = json.loads(said)
    except ValueError:
        raise Failure(f"cfn-lint broke down:\n{said}")
    good = [f"{finding['Filename']}: {finding['Message']}" for finding in findings if finding["Filename"] != str(planted)]
    if good:
        raise Failure("\n".join(good))
    for word in ("aarch64", "putrecordz"):
        if not any(word in finding["Message"].lower() for finding in findings):
            raise Failure(f"cfn-lint overlooks {word}: {said}")
    return f"{len(templates)} templates, {len(snippets)} of the manual's, and 2 planted errors found"


def security(setup):
    """checkov on the templates; what is accepted stands in accepted.json, with the reason. Planted faults must be found, too."""
    accepted = json.loads((tools.HERE / "accepted.json").read_text())
    places = setup.work / "checkov"
    shutil.copytree(setup.templates, places / "good")
    bad = json.loads((places / "good/archive.template.json").read_text())
    for resource in bad["Resources"].values():
        if resource["Type"] == "AWS::S3::Bucket":
            del resource["Properties"]["PublicAccessBlockConfiguration"]
        if resource["Type"] == "AWS::Kinesis::Stream":
            del resource["Properties"]["StreamEncryption"]
    (places / "planted").mkdir()
    (places / "planted/bad.json").write_text(json.dumps(bad))
    command = [tools.ROOT / "checkov/bin/checkov", "--framework", "cloudformation", "--compact", "--quiet", "--output", "json", "--soft-fail"]
    found = {}
    for folder in ("good", "planted"):
        report = places / f"{folder}.out"
        setup.call("security", [*command, "--directory", places / folder, "--output-file-path", report], 120)
        result = json.loads((report / "results_json.json").read_text())
        if result["summary"]["parsing_errors"] or not result["summary"]["passed"]:
            raise Failure(f"checkov has not read the templates: {result['summary']}")
        found[folder] = {check["check_id"]: f"{check['check_name']}: {check['resource']}" for check in result["results"]["failed_checks"]}
    if others := {name: what for name, what in found["good"].items() if name not in accepted}:
        raise Failure(f"checkov: {others}")
    if unused := accepted.keys() - found["good"].keys():
        raise Failure(f"accepted.json accepts what checkov no longer finds: {unused}")
    if not {"CKV_AWS_43", "CKV_AWS_53"} <= found["planted"].keys():
        raise Failure(f"checkov overlooks the planted faults: {found['planted']}")
    return f"{len(accepted)} accepted with a reason, 2 planted faults found"


def usage(setup):
    """What is asked of scripts/deploy wrongly is told at once, before anything is built."""
    program = tools.REPOSITORY / "scripts/deploy"
    if "--destroy" not in setup.call("usage", [program, "--help"], 10):
        raise Failure("--help is no help")
    mistakes = {"--synth --bootstrap": "--bootstrap is for a deployment", "--banana": "unknown argument --banana", "-c Ower=me": "no such key: Ower", "--layers nowhere": "no such folder, and no release such as v0.1.0: nowhere", "--synth --layers": "--layers takes a folder", "--synth -c Owner=me": "missing: -c CostCenter=..., a tag"}
    for arguments, message in mistakes.items():
        said = setup.call("usage", [program, *arguments.split()], 10, may_fail=True)
        if message not in said:
            raise Failure(f"scripts/deploy {arguments} says:\n{said}")
    return f"{len(mistakes)} mistakes"


def deployment(setup):
    """As a person does it, from nothing: a fresh clone, the zips of a release, no compiler, and an account that isn't bootstrapped."""
    setup.moto = setup.stack.enter_context(Moto(setup.work, setup.bin / "python"))
    setup.walk = walked.Walk(setup)
    # 127.0.0.1, as many write it; the script knows that it must be `localhost`.
    address = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{setup.moto.port}"}
    said = setup.walk.deploy("unprepared", may_fail=True, **address)
    stacks = setup.moto.client("cloudformation").describe_stacks()["Stacks"]
    if "with --bootstrap prepares them" not in said or stacks:
        raise Failure(f"without --bootstrap scripts/deploy made {stacks} and says:\n{said}")
    said = setup.walk.deploy("deploy", "--bootstrap", **address)
    arn = "arn:aws:lambda:us-east-1:123456789012:function:kinesis-telemetry-"
    for word in ("== bootstrap", "StreamName = ", f" aws lambda get-function-configuration --function-name {arn}", "--stream-arn arn:aws:kinesis:us-east-1:123456789012:"):
        if word not in said:
            raise Failure(f"scripts/deploy does not say {word!r}:\n{said}")
    if not said.startswith("== needs\n") or "feature flags" in said:
        raise Failure(f"scripts/deploy does not say first what it needs, or speaks of feature flags:\n{said}")
    # Typed into another shell, it must not reach another account.
    destroy = f"AWS_ENDPOINT_URL=http://localhost:{setup.moto.port} AWS_REGION=us-east-1 scripts/deploy --destroy -c stackName=kinesis-telemetry -c account=123456789012"
    if destroy not in said or said.count("scripts/deploy --destroy") != 1:
        raise Failure(f"scripts/deploy does not say {destroy!r} alone:\n{said}")
    # Without the zips that CDK made and keeps: they would hide what `control` does to the files.
    shutil.copytree(setup.walk.cdk / "cdk.out", setup.work / "assembly", ignore=shutil.ignore_patterns(".cache"))
    setup.found = setup.read_back()
    if setup.found.problems:
        raise Failure("the stack is not as it should be:\n  " + "\n  ".join(setup.found.problems))
    resources = setup.moto.client("cloudformation").describe_stack_resources(StackName=readback.STACK)["StackResources"]
    return f"{len(setup.found.outputs)} outputs, {len(resources)} resources"


def advice(setup):
    """What scripts/deploy says at its end names the stack's own account and region, also where the stream is of others."""
    stream = "arn:aws:kinesis:eu-central-1:210987654321:stream/theirs"
    layer = "arn:aws-cn:lambda:cn-north-1:123456789012:layer:kinesis-telemetry-extension-x86_64:1"
    outputs = setup.work / "outputs.json"
    outputs.write_text(json.dumps({"ours": {"StreamArn": stream, "DemoFunctionx8664": "demo", "LayerArn": layer}}))
    said = setup.call("advice", ["node", tools.APP / "dist/next.js", outputs], 10, AWS_PROFILE="work", QUALIFIER="q")
    commands = [line.strip() for line in said.splitlines() if line.startswith("  ")]
    wanted = [
        "aws lambda invoke --function-name arn:aws-cn:lambda:cn-north-1:123456789012:function:demo /dev/stdout",
        f"scripts/tail {stream} --since oldest",
        "scripts/attach --account 123456789012 FUNCTION",
        "scripts/deploy --destroy -c stackName=ours -c account=123456789012 -c qualifier=q",
    ]
    if commands != [f"AWS_PROFILE=work AWS_REGION=cn-north-1 {command}" for command in wanted]:
        raise Failure(f"scripts/deploy ends with\n{said}")
    return f"{len(wanted)} commands"


def layers(setup):
    """`readback` compared the deployed program with the built folder's; here with the zip's that people download."""
    for architecture, program in setup.found.layers.items():
        with zipfile.ZipFile(tools.LAYERS / f"kinesis-telemetry-extension-{architecture}.zip") as archive:
            (entry,) = archive.infolist()
            if (entry.filename, oct(entry.external_attr >> 16)) != (readback.EXTENSION, oct(0o100755)):
                raise Failure(f"the zip for {architecture} holds {entry}")
            if archive.read(entry) != program:
                raise Failure(f"the zip for {architecture} holds another program than the deployed layer")
    sizes = ", ".join(f"{architecture} {len(program)} bytes" for architecture, program in setup.found.layers.items())
    if len(setup.found.layers) != 2:
        raise Failure(f"not both layers are there: {sizes}")
    return sizes


def telemetry(setup):
    """The program out of the deployed layer, with the deployed function's environment, in the simulated Lambda."""
    binary, variables = setup.work / "kinesis-telemetry-extension", setup.work / "environment.json"
    binary.write_bytes(setup.found.layers[MACHINE])
    binary.chmod(0o755)
    variables.write_text(json.dumps(setup.found.environments[MACHINE]))
    command = [setup.integration_tests, "deployed::a_deployed_functions_environment_ships_its_telemetry", "--nocapture"]
    said = setup.call("telemetry", command, 60, KTE_BINARY=binary, KTE_DEPLOYED_ENV=variables)
    if "test result: ok. 1 passed" not in said:
        raise Failure(f"tests/it/deployed.rs was not run:\n{said}")
    return f"with {', '.join(setup.found.environments[MACHINE])}"


def destruction(setup):
    address = {"AWS_ENDPOINT_URL": f"http://localhost:{setup.moto.port}"}
    # The command that was printed, in a shell with another account's credentials.
    setup.walk.call("destroy", ["scripts/deploy", "--destroy", "-c", "account=210987654321"], 120, may_fail=True, **address)
    if not readback.left(setup.moto.client):
        raise Failure("-c account=210987654321 deleted the stack of account 123456789012")
    setup.walk.call("destroy", ["scripts/deploy", "--destroy", "-c", "account=123456789012"], 120, **address)
    left = readback.left(setup.moto.client)
    if left:
        raise Failure(f"left behind: {', '.join(left)}")
    return "nothing is left"


def control(setup):
    """A template broken on purpose: CDK and the emulator take it, and `readback` must find each break."""
    broken = setup.work / "assembly"
    wanted = sabotage(broken)
    # CDK does not upload again what is there under the same hash, the template and a file of another mode among them.
    s3 = setup.moto.client("s3")
    for item in s3.list_objects_v2(Bucket=readback.ASSETS)["Contents"]:
        s3.delete_object(Bucket=readback.ASSETS, Key=item["Key"])
    command = [tools.CDK / "node_modules/.bin/cdk", "deploy", "--app", broken, "--all", "--require-approval", "never", "--no-notices"]
    said = setup.call("control", command, 120, folder=tools.CDK, **setup.moto.variables())
    if "✅" not in said:
        raise Failure(f"cdk did not deploy the broken template:\n{said}")
    problems = setup.read_back().problems
    overlooked = [start for start in wanted if not any(problem.startswith(start) for problem in problems)]
    beside = [problem for problem in problems if not any(problem.startswith(start) for start in wanted)]
    if overlooked or beside:
        raise Failure(f"overlooked: {overlooked}; found beside that: {beside}")
    return f"{len(wanted)} breaks, {len(problems)} found"


def sabotage(assembly):
    """Breaks a synthesized stack in many places, and gives how the problem of each must begin."""
    (file,) = assembly.glob("*.template.json")
    document = json.loads(file.read_text())

    def first(kind, word=""):
        return next(key for key, it in document["Resources"].items() if it["Type"] == kind and word in json.dumps(it["Properties"]))

    def properties(kind, word=""):
        return document["Resources"][first(kind, word)]["Properties"]

    # Both layers become the x86_64 program, and that can't be executed.
    x86, arm = (properties("AWS::Lambda::LayerVersion", architecture) for architecture in ("x86_64", "arm64"))
    arm["Content"]["S3Key"] = x86["Content"]["S3Key"]
    (assembly / f"asset.{x86['Content']['S3Key'].removesuffix('.zip')}" / readback.EXTENSION).chmod(0o644)
    properties("AWS::IAM::ManagedPolicy")["PolicyDocument"]["Statement"][0]["Action"] = "kinesis:PutRecord"
    properties("AWS::SSM::Parameter", "/extension/arn")["Value"] = "nothing"
    del properties("AWS::Kinesis::Stream")["StreamEncryption"]
    properties("AWS::Kinesis::Stream")["Tags"].pop()
    properties("AWS::Logs::LogGroup")["RetentionInDays"] = 3
    del properties("AWS::Lambda::Function", "arm64")["Layers"]
    del properties("AWS::Lambda::Function", "x86_64")["Environment"]
    del properties("AWS::IAM::Role")["ManagedPolicyArns"]
    del document["Resources"][first("AWS::CloudWatch::Alarm")], document["Outputs"]["WriteThrottlesAlarm"]
    file.write_text(json.dumps(document))
    return [
        "layer x86_64: files and modes",
        "layer arm64: files and modes",
        "layer arm64: program",
        "policy: statements",
        "parameters: extension/arn",
        "stream: encryption",
        "stream: tags",
        "log_group x86_64: retention",
        "function arm64: layers",
        "function x86_64: KeyError('Environment')",
        "role x86_64: managed policies",
        "alarm: KeyError('WriteThrottlesAlarm')",
    ]


CHECKS = [
    Check("types", "strict TypeScript", types),
    Check("settings", "the settings' type is the binary's table", settings, "types"),
    Check("template", "what the template must say", template, "types"),
    Check("package", "the construct can be published, and jsii compiles it", packed.check, "types"),
    Check("offline", "synthesis without a network", offline),
    Check("release", "scripts/deploy --layers takes whole releases only", release),
    Check("lint", "cfn-lint has nothing to say", lint, "template"),
    Check("security", "checkov finds nothing but what is accepted", security, "template"),
    Check("image", "the container image holds the layers' programs", imaged.check),
    Check("usage", "scripts/deploy names a mistake", usage),
    Check("advice", "what to try next acts on the same account", advice, "types"),
    Check("deployment", "scripts/deploy from a fresh clone and a release, without a compiler; every resource read back", deployment),
    Check("walk", "three functions attached, their events seen, detached, and all as found before", walked.check, "deployment"),
    Check("recipes", "the manual's recipes, each by a tool", recipes.check, "deployment"),
    Check("layers", "the deployed program is the built one, 0755 in its place", layers, "deployment"),
    Check("telemetry", "the deployed environment and program ship telemetry", telemetry, "deployment"),
    Check("values", "scripts/attach takes the values that the program takes", attached.values),
    Check("attachment", "scripts/attach and --detach, and all is as before", attached.check, "deployment"),
    Check("publication", "scripts/publish in several regions, begun and continued", published.check, "deployment"),
    Check("destruction", "scripts/deploy --destroy", destruction, "deployment"),
    Check("control", "a template broken on purpose does not pass", control, "destruction"),
]
