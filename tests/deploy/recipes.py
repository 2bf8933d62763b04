"""The manual's recipes, each given to a tool that others wrote. cfn-lint reads the templates: see `lint` in checks.py."""
import concurrent.futures
import json
import os
import re
import shlex
import shutil
import tarfile

import tools
from emulation import Failure

MANUAL = tools.REPOSITORY / ".github/docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What neither the emulator nor this AWS CLI knows yet: checked by AWS's own model of the service, which is boto3's.
NOT_EMULATED = ("update-stream-record-distribution-strategy",)
NOBODY = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true"}
# Both read texts from a file, and say something of each.
TERRAFORM = """
const { parse } = require('@cdktn/hcl2json'), { format } = require('@cdktn/hcl-tools');
const look = async (text) => {
  const formatted = (await format(text)).trimEnd() === text.trimEnd();
  return parse('x.tf', text).then((parsed) => ({ parsed, formatted }), (error) => ({ error: String(error), formatted }));
};
(async () => {
  const said = [];
  for (const text of JSON.parse(require('node:fs').readFileSync(process.argv[2], 'utf8'))) said.push(await look(text));
  console.log(JSON.stringify(said));
  process.exit(0);
})();
"""
DOCKERFILE = """
const { validate } = require('dockerfile-utils');
const texts = JSON.parse(require('node:fs').readFileSync(process.argv[2], 'utf8'));
console.log(JSON.stringify(texts.map((text) => validate(text).map(({ message, range }) => `${range.start.line + 1}: ${message}`))));
"""


def blocks(page, language):
    return [text for name, text in BLOCK.findall((MANUAL / page).read_text()) if name == language]


def check(setup):
    work = setup.work / "recipes"
    work.mkdir()
    for architecture in ("x86_64", "arm64"):
        shutil.copy(tools.LAYERS / f"kinesis-telemetry-extension-{architecture}.zip", work)
    recipes = {"Terraform": terraform, "Dockerfiles": dockerfiles, "services of osls": services, "AWS commands": commands, "sets of variables": variables}
    # Each of them waits for programs that start slowly.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        tasks = {name: pool.submit(recipe, setup, work) for name, recipe in recipes.items()}
    counted = {name: task.result() for name, task in tasks.items()}
    if empty := [name for name, count in counted.items() if not count]:
        raise Failure(f"the manual has no {' and no '.join(empty)}")
    return ", ".join(f"{count} {name}" for name, count in counted.items())


def node(setup, work, program, texts, name):
    """What a program that uses the npm packages says of texts."""
    script, file = tools.ROOT / f"npm/{name}.js", work / name
    script.write_text(program)
    file.write_text(json.dumps(texts))
    return json.loads(setup.call(f"recipes-{name}", ["node", script, file], 60))


def terraform(setup, work):
    """HashiCorp's own parser and formatter, compiled to WebAssembly. The provider's schema is not checked."""
    snippets = [*blocks("deploy.md", "hcl"), *blocks("recipes.md", "hcl")]
    planted = [snippets[0].replace("{", "[", 1), snippets[0].replace("  ", " ")]
    *said, broken, untidy = node(setup, work, TERRAFORM, [*snippets, *planted], "terraform")
    for snippet, found in zip(snippets, said):
        if not found["formatted"] or "aws_lambda_function" not in found.get("parsed", {}).get("resource", {}):
            raise Failure(f"{found}\n{snippet}")
    if "error" not in broken or untidy["formatted"]:
        raise Failure(f"overlooked in Terraform: {broken} {untidy}")
    return len(snippets)


def dockerfiles(setup, work):
    """And what they copy is in the image that scripts/image makes."""
    files = blocks("recipes.md", "dockerfile")
    *said, planted = node(setup, work, DOCKERFILE, [*files, files[0].replace("COPY", "CPY")], "dockerfile")
    if any(said) or not planted:
        raise Failure(f"found in Dockerfiles: {said}, and where CPY was planted: {planted}")
    for file in files:
        (source,) = re.findall(r"^COPY --from=REGISTRY/kinesis-telemetry-extension:(\S+) /opt/ /opt/$", file, re.MULTILINE)
        said = setup.call("recipes-image", [tools.REPOSITORY / "scripts/image", "--zips", work], 60)
        if f"image {source} " not in said:
            raise Failure(f"the manual copies from version {source}, and scripts/image says:\n{said}")
        with tarfile.open(work / "kinesis-telemetry-extension-image.tar") as image:
            contents = [name for member in image if member.size > 1_000_000 for name in tarfile.open(fileobj=image.extractfile(member)).getnames()]
        if contents.count("opt/extensions/kinesis-telemetry-extension") != 2:
            raise Failure(f"the image holds {contents}")
    return len(files)


def services(setup, work):
    """osls, the community's Serverless Framework, makes a template of each: with the layer, the policy and the stream that are deployed."""
    files = [text for text in blocks("recipes.md", "yaml") if text.startswith("service:")]
    ssm = setup.moto.client("ssm")
    deployed = {name: ssm.get_parameter(Name=f"/telemetry/kinesis/{name}")["Parameter"]["Value"] for name in ("extension/arm64/arn", "stream/arn", "runtime/policy/arn")}
    for file in files:
        place = work / "service"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        (place / "serverless.yml").write_text(file)
        (place / "app.py").write_text("def handler(event, context):\n    return event\n")
        command = [tools.ROOT / "npm/node_modules/.bin/osls", "package"]
        said = setup.call("recipes-osls", command, 120, folder=place, SLS_NOTIFICATIONS_MODE="off", SLS_TELEMETRY_DISABLED="1", AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED="true", **setup.moto.variables())
        if "warning" in said.lower():
            raise Failure(f"osls warns:\n{said}")
        resources = json.loads((place / ".serverless/cloudformation-template-update-stack.json").read_text())["Resources"]
        (function,) = [it["Properties"] for it in resources.values() if it["Type"] == "AWS::Lambda::Function"]
        (role,) = [it["Properties"] for it in resources.values() if it["Type"] == "AWS::IAM::Role"]
        found = (function["Layers"], function["Architectures"], function["Environment"]["Variables"]["KINESIS_TELEMETRY_STREAM"], role["ManagedPolicyArns"])
        if found != ([deployed["extension/arm64/arn"]], ["arm64"], deployed["stream/arn"], [deployed["runtime/policy/arn"]]):
            raise Failure(f"osls makes {found}")
    return len(files)


def commands(setup, work):
    """Those of the AWS CLI, in their order, in the emulated AWS; what is not emulated is checked by AWS's model alone."""
    emulated = {**NOBODY, **setup.moto.variables(), "AWS_PAGER": ""}
    for name in ("cfn", "target"):
        shutil.rmtree(work / name, ignore_errors=True)
    (work / "target").mkdir()
    (work / "target/layer").symlink_to(work)
    (template,) = [text for text in blocks("recipes.md", "yaml") if "LayerAccount" in text]
    (work / "telemetry-account.yaml").write_text(template)
    setup.moto.client("s3").create_bucket(Bucket="my-artifacts")
    organisation = setup.moto.client("organizations")
    organisation.create_organization(FeatureSet="ALL")
    root = organisation.list_roots()["Roots"][0]["Id"]
    unit = organisation.create_organizational_unit(ParentId=root, Name="all")["OrganizationalUnit"]["Id"]
    found = [line for block in blocks("recipes.md", "sh") for line in block.replace("\\\n", " ").splitlines() if line.startswith("aws ")]
    for command in found:
        words = shlex.split(command.replace("ou-abcd-11111111", unit))
        if any(word in command for word in NOT_EMULATED):
            modelled(words)
            continue
        setup.call("recipes-aws", words, 60, folder=work, **emulated, PATH=path(setup))
    cleaned(setup)
    said = setup.call("recipes-aws", ["aws", "lambda", "list-layers", "--organisation-id", "x"], 60, may_fail=True, **emulated, PATH=path(setup))
    if "Unknown options: --organisation-id" not in said:
        raise Failure(f"overlooked by the AWS CLI: --organisation-id\n{said}")
    return len(found)


def modelled(words):
    """Whether a command's service, operation, options and values are in AWS's model."""
    import botocore.session
    import botocore.validate

    camel = lambda words: "".join(word.capitalize() for word in words.split("-")).replace("Arn", "ARN")
    _, service, operation, *options = words
    model = botocore.session.get_session().get_service_model(service)
    shape = model.operation_model(camel(operation)).input_shape
    given = {camel(name.removeprefix("--")): value for name, value in zip(options[::2], options[1::2])}
    report = botocore.validate.ParamValidator().validate(given, shape)
    choices = {name: shape.members[name].enum for name in given if name in shape.members}
    wrong = [name for name, values in choices.items() if values and given[name] not in values]
    if report.has_errors() or wrong or given.keys() - shape.members.keys():
        raise Failure(f"{' '.join(words)}: {report.generate_report()} {wrong} {given.keys() - shape.members.keys()}")


def path(setup):
    return f"{setup.bin}{os.pathsep}{os.environ['PATH']}"


def cleaned(setup):
    """The later checks count layers and buckets."""
    functions, s3 = setup.moto.client("lambda"), setup.moto.client("s3")
    versions = functions.list_layer_versions(LayerName="kinesis-telemetry-extension-arm64")["LayerVersions"]
    # The first is the stack's.
    for version in versions:
        if version["Version"] > 1:
            functions.delete_layer_version(LayerName="kinesis-telemetry-extension-arm64", VersionNumber=version["Version"])
    functions.remove_layer_version_permission(LayerName="kinesis-telemetry-extension-arm64", VersionNumber=1, StatementId="use-o-abc1234567")
    for item in s3.list_objects_v2(Bucket="my-artifacts")["Contents"]:
        s3.delete_object(Bucket="my-artifacts", Key=item["Key"])
    s3.delete_bucket(Bucket="my-artifacts")


def variables(setup, _):
    """The program takes them, and says what the manual shows."""
    found = blocks("recipes.md", "properties")
    shown = [line for block in blocks("recipes.md", "console") for line in block.splitlines()]
    said = ""
    for block in found:
        settings = dict(line.split("=", 1) for line in block.splitlines())
        bare = [f"{name}={value}" for name, value in {**NOBODY, **settings}.items()]
        one = setup.call("recipes-check", ["env", "-i", *bare, setup.binary, "--check"], 60, may_fail=True)
        if "ok    settings: " not in one:
            raise Failure(f"{settings}\n{one}")
        said += one
    if missing := [line for line in shown if line not in said]:
        raise Failure(f"the program does not say {missing}:\n{said}")
    return len(found)
