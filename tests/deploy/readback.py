"""Reads every resource of a deployed stack back, and tells what is not as it should be.

CDK's exit code proves nothing against an emulator: where CloudFormation leaves something out, `cdk deploy` prints its tick
all the same. So nothing here looks at the template: what is expected stands here, and what is there comes from the
services themselves.
"""
import base64
import hashlib
import io
import json
import re
import tomllib
import zipfile

import botocore.exceptions

from emulation import ACCOUNT, REGION
from tools import REPOSITORY

STACK = "kinesis-telemetry"
ARCHITECTURES = {"x86_64": "x8664", "arm64": "arm64"}
EXTENSION = "extensions/kinesis-telemetry-extension"
ASSETS = f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"


class Readback:
    """What is there, as `problems` (sentences that begin with what is wrong) and as `layers` and `environments`."""

    def __init__(self, client, tags, layers):
        """`client` gives a client of a service; `tags` are expected everywhere; `layers` is the folder with those built."""
        self.client, self.tags, self.built = client, tags, layers
        self.problems, self.layers, self.environments = [], {}, {}
        self.outputs = self.part("outputs", self.read_outputs) or {}
        for what in ("stream", "policy", "parameters", "dashboard", "alarm"):
            self.part(what, getattr(self, f"read_{what}"))
        for architecture in ARCHITECTURES:
            for what in ("layer", "function", "role", "log_group"):
                self.part(f"{what} {architecture}", getattr(self, f"read_{what}"), architecture)

    def part(self, what, read, *arguments):
        """Reads one part; what is not there at all is a problem as any other."""
        self.what = what
        try:
            return read(*arguments)
        except (KeyError, IndexError, botocore.exceptions.ClientError) as error:
            self.problems.append(f"{what}: {error!r}")

    def expect(self, name, found, wanted):
        if found != wanted:
            self.problems.append(f"{self.what}: {name} is {found!r}, not {wanted!r}")

    def read_outputs(self):
        stack = self.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]
        self.expect("status", stack["StackStatus"], "CREATE_COMPLETE")
        self.expect("tags", pairs(stack["Tags"]), self.tags)
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def read_stream(self):
        kinesis, name = self.client("kinesis"), self.outputs["StreamName"]
        stream = kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
        self.expect("ARN", stream["StreamARN"], self.outputs["StreamArn"])
        self.expect("status", stream["StreamStatus"], "ACTIVE")
        self.expect("mode", stream["StreamModeDetails"]["StreamMode"], "ON_DEMAND")
        self.expect("retention", stream["RetentionPeriodHours"], 24)
        self.expect("encryption", (stream["EncryptionType"], stream.get("KeyId")), ("KMS", "alias/aws/kinesis"))
        self.expect("tags", pairs(kinesis.list_tags_for_stream(StreamName=name)["Tags"]), self.tags)

    def read_policy(self):
        iam, arn = self.client("iam"), self.outputs["PolicyArn"]
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
        statement = {"Effect": "Allow", "Action": "kinesis:PutRecords", "Resource": self.outputs["StreamArn"]}
        self.expect("statements", document["Statement"], [statement])

    def read_parameters(self):
        ssm, version = self.client("ssm"), tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["package"]["version"]
        wanted = {
            "extension/arn": "LayerArnx8664",
            "extension/x86_64/arn": "LayerArnx8664",
            "extension/arm64/arn": "LayerArnarm64",
            "extension/x86_64/latest": "LayerArnx8664",
            "extension/arm64/latest": "LayerArnarm64",
            f"extension/x86_64/{version}": "LayerArnx8664",
            f"extension/arm64/{version}": "LayerArnarm64",
            "runtime/policy/arn": "PolicyArn",
            "stream/arn": "StreamArn",
        }
        for name, output in wanted.items():
            full = f"/telemetry/kinesis/{name}"
            self.expect(name, ssm.get_parameter(Name=full)["Parameter"]["Value"], self.outputs[output])
            tags = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=full)["TagList"]
            self.expect(f"tags of {name}", pairs(tags), self.tags)

    def read_dashboard(self):
        body = self.client("cloudwatch").get_dashboard(DashboardName=self.outputs["Dashboard"])["DashboardBody"]
        names = [self.outputs[name] for name in ("StreamName", "DemoFunctionx8664", "DemoFunctionarm64")]
        for word in ("IncomingBytes", "PostRuntimeExtensionsDuration", *names):
            self.expect(f"showing {word}", word in json.dumps(json.loads(body)), True)

    def read_alarm(self):
        alarms = {"Volume": "IncomingBytes", "WriteThrottles": "WriteProvisionedThroughputExceeded"}
        for name, metric in alarms.items():
            found = self.client("cloudwatch").describe_alarms(AlarmNames=[self.outputs[f"{name}Alarm"]])["MetricAlarms"]
            self.expect("metric", (found[0]["Namespace"], found[0]["MetricName"]), ("AWS/Kinesis", metric))
            self.expect("dimensions", found[0]["Dimensions"], [{"Name": "StreamName", "Value": self.outputs["StreamName"]}])

    def read_layer(self, architecture):
        """The layer version, and the bytes behind it: those that were uploaded, and in them the program that was built."""
        arn = self.outputs[f"LayerArn{ARCHITECTURES[architecture]}"]
        name = f"kinesis-telemetry-extension-{architecture}"
        if not re.fullmatch(rf"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:{name}:\d+", arn):
            raise KeyError(arn)
        layer = self.client("lambda").get_layer_version(LayerName=name, VersionNumber=int(arn.split(":")[-1]))
        self.expect("ARN", layer["LayerVersionArn"], arn)
        self.expect("architectures", layer["CompatibleArchitectures"], [architecture])
        uploaded = self.asset(layer["Content"]["CodeSha256"])
        self.expect("size", layer["Content"]["CodeSize"], len(uploaded))
        with zipfile.ZipFile(io.BytesIO(uploaded)) as archive:
            files = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist() if not entry.is_dir()}
            self.expect("files and modes", {file: oct(mode) for file, mode in files.items()}, {EXTENSION: oct(0o100755)})
            program = archive.read(EXTENSION)
        self.expect("program", digest(program), digest((self.built / architecture / EXTENSION).read_bytes()))
        self.layers[architecture] = program

    def asset(self, sha256):
        """The uploaded object whose hash Lambda tells: it stands for the bytes that functions get."""
        s3 = self.client("s3")
        for item in s3.list_objects_v2(Bucket=ASSETS)["Contents"]:
            body = s3.get_object(Bucket=ASSETS, Key=item["Key"])["Body"].read()
            if base64.b64encode(hashlib.sha256(body).digest()).decode() == sha256:
                return body
        raise KeyError(f"nothing uploaded has the hash {sha256}")

    def read_function(self, architecture):
        short = ARCHITECTURES[architecture]
        function = self.client("lambda").get_function(FunctionName=self.outputs[f"DemoFunction{short}"])
        configuration = function["Configuration"]
        self.environments[architecture] = configuration["Environment"]["Variables"]
        self.expect("environment", self.environments[architecture], {"KINESIS_TELEMETRY_STREAM": self.outputs["StreamArn"]})
        self.expect("layers", [layer["Arn"] for layer in configuration.get("Layers", [])], [self.outputs[f"LayerArn{short}"]])
        self.expect("architectures", configuration["Architectures"], [architecture])
        self.expect("tracing", configuration["TracingConfig"]["Mode"], "Active")
        self.expect("memory and time-out", (configuration["MemorySize"], configuration["Timeout"]), (256, 10))
        self.expect("tags", function["Tags"], self.tags)

    def read_role(self, architecture):
        function = self.client("lambda").get_function_configuration(FunctionName=self.outputs[f"DemoFunction{ARCHITECTURES[architecture]}"])
        iam, name = self.client("iam"), function["Role"].split("/")[-1]
        attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        self.expect("managed policies", [policy["PolicyArn"] for policy in attached], [self.outputs["PolicyArn"]])
        self.expect("tags", pairs(iam.list_role_tags(RoleName=name)["Tags"]), self.tags)

    def read_log_group(self, architecture):
        logs, name = self.client("logs"), self.outputs[f"DemoLogGroup{ARCHITECTURES[architecture]}"]
        group = logs.describe_log_groups(logGroupNamePrefix=name)["logGroups"][0]
        self.expect("retention", group.get("retentionInDays"), 1)
        self.expect("tags", logs.list_tags_for_resource(resourceArn=group["arn"].removesuffix(":*"))["tags"], self.tags)


def left(client):
    """What is left of the stack after it was deleted: nothing, one hopes. CDK's own bootstrap stack stays."""
    found = [f"stream {name}" for name in client("kinesis").list_streams()["StreamNames"]]
    found += [f"function {function['FunctionName']}" for function in client("lambda").list_functions()["Functions"]]
    found += [f"layer {layer['LayerName']}" for layer in client("lambda").list_layers()["Layers"]]
    found += [f"policy {policy['Arn']}" for policy in client("iam").list_policies(Scope="Local")["Policies"]]
    found += [f"role {role['RoleName']}" for role in client("iam").list_roles()["Roles"] if not role["RoleName"].startswith("cdk-")]
    found += [f"log group {group['logGroupName']}" for group in client("logs").describe_log_groups()["logGroups"]]
    found += [f"alarm {alarm['AlarmName']}" for alarm in client("cloudwatch").describe_alarms()["MetricAlarms"]]
    found += [f"dashboard {entry['DashboardName']}" for entry in client("cloudwatch").list_dashboards()["DashboardEntries"]]
    names = [parameter["Name"] for parameter in client("ssm").describe_parameters()["Parameters"]]
    return found + [f"parameter {name}" for name in names if not name.startswith("/cdk-bootstrap/")]


def pairs(tags):
    return {tag["Key"]: tag["Value"] for tag in tags}


def digest(data):
    return hashlib.sha256(data).hexdigest()
