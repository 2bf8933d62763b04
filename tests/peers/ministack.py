"""ministack: an AWS emulator that checks signatures, session tokens and IAM permissions when AUTH=true."""
import json

import boto3

import install
import stream
from process import Process

NAME = "ministack 1.5.33"
PORT = 5131


class Ministack(Process):
    def __init__(self, setup, certificate=None):
        """Starts it with an empty stream. With `certificate` (certificate.py) it speaks TLS."""
        self.certificate = certificate
        self.url = f"https://localhost:{PORT}" if certificate else f"http://127.0.0.1:{PORT}"
        environment = {
            "AUTH": "true",
            "GATEWAY_PORT": str(PORT),
            # Its defaults listen on every interface.
            "BIND_HOST": "127.0.0.1",
            "IOT_MTLS_ENABLED": "0",
            "HOME": str(setup.work),
            "TMPDIR": str(setup.work),
        }
        if certificate:
            tls = {"USE_SSL": "1", "MINISTACK_SSL_CERT": certificate.leaf, "MINISTACK_SSL_KEY": certificate.key}
            environment |= {name: str(value) for name, value in tls.items()}
        super().__init__([install.venv("ministack") / "ministack"], environment, setup.work / "ministack.log", PORT)

    def prepare(self):
        self.kinesis = self.client("kinesis")
        self.arn = stream.create(self.kinesis)

    def client(self, service):
        """A boto3 client with the key that ministack takes for the administrator's."""
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=stream.REGION,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            verify=str(self.certificate.authority) if self.certificate else None,
        )

    def role(self, name, action, resource):
        """A new role that may do `action` on `resource`, and nothing else; its ARN."""
        iam = self.client("iam")
        trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
        role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))["Role"]
        allow = {"Effect": "Allow", "Action": action, "Resource": resource}
        iam.put_role_policy(RoleName=name, PolicyName="only", PolicyDocument=policy(allow))
        return role["Arn"]

    def settings(self, action="kinesis:PutRecords", resource=None):
        """The extension's environment: session keys of a new role that may do `action` on the stream, and nothing else."""
        role = self.role("function", action, resource or self.arn)
        keys = self.client("sts").assume_role(RoleArn=role, RoleSessionName="function")["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": keys["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": keys["SecretAccessKey"],
            "AWS_SESSION_TOKEN": keys["SessionToken"],
            "AWS_REGION": stream.REGION,
            "AWS_ENDPOINT_URL_KINESIS": self.url,
            "KINESIS_TELEMETRY_STREAM": stream.NAME,
        }


def policy(statement):
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
