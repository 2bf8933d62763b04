"""moto 5.2.5 as an AWS to deploy to, with what its CloudFormation leaves out of our template put in.

Runs with the virtual environment's Python: `moto_server.py -H 127.0.0.1 -p PORT`. Without these patches `cdk deploy` prints a
tick and exits 0 all the same, and half of the stack is missing or wrong.
"""
import json
import os
import sys
import uuid

# Read when moto's IAM is imported: the policies that `cdk bootstrap` attaches to its roles.
os.environ.setdefault("MOTO_IAM_LOAD_MANAGED_POLICIES", "true")

import moto.awslambda.models as functions
import moto.awslambda.policy as policies
import moto.cloudformation.models as cloudformation
import moto.cloudwatch.models as cloudwatch
import moto.iam.models as iam
import moto.kinesis.models as kinesis
import moto.ssm.models as ssm
from moto.awslambda.exceptions import LambdaClientError, PreconditionFailedException
from moto.core.common_models import CloudFormationModel
from moto.server import main
from moto.utilities.utils import get_partition


def replaces(model, method):
    """The decorated function takes the place of the class method `method` of `model`; its first argument is the old one."""
    stock = getattr(model, method)

    def replace(function):
        setattr(model, method, classmethod(lambda _, *arguments, **named: function(stock, *arguments, **named)))

    return replace


def roles_and_policies(account, region):
    return iam.iam_backends[account][get_partition(region)]


apply_change_set = cloudformation.ChangeSet.apply


def apply(change_set):
    """Stock leaves the outputs out of a stack that a change set makes, which is how `cdk deploy` makes them."""
    apply_change_set(change_set)
    stack = change_set.stack
    stack.output_map = cloudformation.OutputMap(stack.resource_map, change_set.template_dict, stack.stack_id)


cloudformation.ChangeSet.apply = apply

# Stock `Ref` gives the text of a Python object.
functions.LayerVersion.physical_resource_id = property(lambda layer: layer.arn)


@replaces(functions.LayerVersion, "create_from_cloudformation_json")
def create_layer(_, name, template, account, region, **__):
    """Stock takes the name from nowhere and leaves the architectures out."""
    return functions.get_backend(account, region).publish_layer_version({"LayerName": name, **template["Properties"]})


@replaces(functions.LayerVersion, "delete_from_cloudformation_json")
def delete_layer(_, arn, __, account, region):
    """Stock does nothing."""
    name, version = arn.split(":")[-2:]
    functions.get_backend(account, region).delete_layer_version(name, version)


@replaces(functions.LambdaFunction, "create_from_cloudformation_json")
def create_function(stock, name, template, account, region, **more):
    """Stock leaves layers, architectures, tracing and tags out."""
    properties = template["Properties"]
    function = stock(name, template, account, region, **more)
    function.layers = function._get_layers_data(properties.get("Layers", []))
    function.architectures = properties.get("Architectures", ["x86_64"])
    function.tracing_config = properties.get("TracingConfig", {"Mode": "PassThrough"})
    tags = {tag["Key"]: tag["Value"] for tag in properties.get("Tags", [])}
    functions.get_backend(account, region).tag_resource(function.function_arn, tags)
    return function


configuration_of, update_configuration = functions.LambdaFunction.get_configuration, functions.LambdaFunction.update_configuration


def get_configuration(function, *arguments, **named):
    """Stock has no revision."""
    configuration = configuration_of(function, *arguments, **named)
    text = json.dumps({name: value for name, value in configuration.items() if name != "LastModified"}, sort_keys=True, default=str)
    return {**configuration, "RevisionId": str(uuid.uuid5(uuid.NAMESPACE_OID, text))}


def update(function, updates):
    """Stock overwrites what somebody else has changed since."""
    if updates.pop("RevisionId", None) not in (None, get_configuration(function)["RevisionId"]):
        raise PreconditionFailedException("The Revision Id provided does not match the latest Revision Id.")
    update_configuration(function, updates)
    return get_configuration(function)


functions.LambdaFunction.get_configuration = get_configuration
functions.LambdaFunction.update_configuration = update


class ResourceConflict(LambdaClientError):
    code = 409


add_statement = policies.Policy.add_statement


def add_once(policy, raw, qualifier=None):
    """Stock takes a statement twice, and leaves the organisation out."""
    asked = json.loads(raw)
    if any(statement.get("Sid") == asked.get("StatementId") for statement in policy.statements):
        raise ResourceConflict("ResourceConflictException", "The statement id provided already exists")
    statement, revision = add_statement(policy, raw, qualifier)
    if "OrganizationId" in asked:
        statement["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": asked["OrganizationId"]}}
    return statement, revision


policies.Policy.add_statement = add_once


@replaces(ssm.Parameter, "create_from_cloudformation_json")
def create_parameter(stock, name, template, account, region, **more):
    """Stock fails on tags, which are a map here and a list elsewhere."""
    properties = dict(template["Properties"])
    properties["Tags"] = [{"Key": key, "Value": value} for key, value in properties.get("Tags", {}).items()]
    return stock(name, {**template, "Properties": properties}, account, region, **more)


@replaces(iam.Role, "create_from_cloudformation_json")
def create_role(stock, name, template, account, region, **more):
    """Stock leaves the managed policies out."""
    role = stock(name, template, account, region, **more)
    for arn in template["Properties"].get("ManagedPolicyArns", []):
        roles_and_policies(account, region).attach_role_policy(arn, role.name)
    return role


@replaces(iam.Role, "delete_from_cloudformation_json")
def delete_role(stock, name, template, account, region):
    backend = roles_and_policies(account, region)
    for arn in list(backend.get_role(name).managed_policies):
        backend.detach_role_policy(arn, name)
    stock(name, template, account, region)


@replaces(iam.ManagedPolicy, "delete_from_cloudformation_json")
def delete_policy(_, arn, __, account, region):
    """Stock does nothing. The role that has it may be deleted later, in moto's order of things."""
    backend = roles_and_policies(account, region)
    for role in backend.roles.values():
        if arn in role.managed_policies:
            backend.detach_role_policy(arn, role.name)
    backend.delete_policy(arn)


@replaces(kinesis.Stream, "create_from_cloudformation_json")
def create_stream(stock, name, template, account, region, **more):
    """Stock leaves mode and encryption out."""
    properties = template["Properties"]
    stream = stock(name, template, account, region, **more)
    stream.stream_mode = properties.get("StreamModeDetails", {"StreamMode": "PROVISIONED"})
    encryption = properties.get("StreamEncryption", {})
    stream.encryption_type, stream.key_id = encryption.get("EncryptionType", "NONE"), encryption.get("KeyId")
    return stream


class Alarm(CloudFormationModel):
    """`AWS::CloudWatch::Alarm`, which stock CloudFormation skips. moto finds the class by its base and its module's name."""

    __module__ = cloudwatch.__name__

    @staticmethod
    def cloudformation_name_type():
        return "AlarmName"

    @staticmethod
    def cloudformation_type():
        return "AWS::CloudWatch::Alarm"

    def __init__(self, name):
        self.physical_resource_id = name

    @classmethod
    def create_from_cloudformation_json(cls, name, template, account, region, **_):
        properties = template["Properties"]
        cloudwatch.cloudwatch_backends[account][region].put_metric_alarm(
            name=name,
            namespace=properties["Namespace"],
            metric_name=properties["MetricName"],
            comparison_operator=properties["ComparisonOperator"],
            evaluation_periods=properties["EvaluationPeriods"],
            datapoints_to_alarm=properties.get("DatapointsToAlarm"),
            period=properties["Period"],
            threshold=properties["Threshold"],
            statistic=properties["Statistic"],
            description=properties.get("AlarmDescription", ""),
            dimensions=properties.get("Dimensions", []),
            alarm_actions=properties.get("AlarmActions", []),
            ok_actions=properties.get("OKActions", []),
            treat_missing_data=properties.get("TreatMissingData"),
            tags=properties.get("Tags"),
        )
        return cls(name)

    @classmethod
    def delete_from_cloudformation_json(cls, name, _, account, region):
        cloudwatch.cloudwatch_backends[account][region].delete_alarms([name])


if __name__ == "__main__":
    main(sys.argv[1:])
