"""Functions as a fleet has them, in the emulated AWS: for the checks of scripts/attach."""
import io
import json
import zipfile

TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
THEIRS = {"MINE": "1", "PRIVATE": "do not print this"}


def packed():
    """A zip with a function of one line."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("index.py", "def handler(event, context):\n    return event\n")
    return data.getvalue()


class Fleet:
    """Makes functions, and tells how each of them is: what an attachment may change, and its role's policies."""

    def __init__(self, client):
        self.client, self.functions, self.iam = client, client("lambda"), client("iam")
        self.roles, self.layers = {}, []

    def role(self, name):
        if name not in self.roles:
            made = self.iam.create_role(RoleName=name, Path="/theirs/", AssumeRolePolicyDocument=json.dumps(TRUST))
            self.roles[name] = made["Role"]["Arn"]
        return self.roles[name]

    def layer(self, name, **more):
        made = self.functions.publish_layer_version(LayerName=name, Content={"ZipFile": packed()}, **more)
        self.layers.append((name, made["Version"]))
        return made["LayerVersionArn"]

    def function(self, name, architecture="x86_64", layers=(), role=None, variables=THEIRS, tags=None):
        self.functions.create_function(
            FunctionName=name,
            Role=self.role(role or f"role-of-{name}"),
            Code={"ZipFile": packed()},
            Runtime="python3.13",
            Handler="index.handler",
            Architectures=[architecture],
            Layers=list(layers),
            Environment={"Variables": dict(variables)},
            Tags=tags or {},
        )

    def image(self, name):
        self.functions.create_function(
            FunctionName=name,
            Role=self.role(f"role-of-{name}"),
            Code={"ImageUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/theirs:1"},
            PackageType="Image",
        )

    def look(self, name):
        configuration = self.functions.get_function_configuration(FunctionName=name)
        role = configuration["Role"].rpartition("/")[2]
        policies = self.iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        return {
            "layers": [layer["Arn"] for layer in configuration.get("Layers", [])],
            "variables": configuration.get("Environment", {}).get("Variables", {}),
            "policies": [policy["PolicyArn"] for policy in policies],
        }

    def delete(self, names):
        for name in names:
            self.functions.delete_function(FunctionName=name)
        for name in self.roles:
            self.iam.delete_role(RoleName=name)
        for name, version in self.layers:
            self.functions.delete_layer_version(LayerName=name, VersionNumber=version)
