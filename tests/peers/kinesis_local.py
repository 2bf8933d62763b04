"""kinesis-local: kinesis-mock compiled to JavaScript. It checks no signature, and has nulls where AWS has nothing."""
import shutil

import boto3

import stream
from process import Process

NAME = "kinesis-local 0.6.2"
PORT = 5122
TLS_PORT = 5121
URL = f"http://127.0.0.1:{PORT}"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "example", "AWS_SESSION_TOKEN": "example"}


class KinesisLocal(Process):
    def __init__(self, setup):
        environment = {
            "AWS_ACCOUNT_ID": "123456789012",
            "AWS_REGION": stream.REGION,
            "KINESIS_MOCK_PLAIN_PORT": str(PORT),
            "KINESIS_MOCK_TLS_PORT": str(TLS_PORT),
            # Streams appear and change without its usual pretence of taking time.
            "CREATE_STREAM_DURATION": "0ms",
        }
        folder = setup.root / "kinesis-local/node_modules/kinesis-local"
        super().__init__([shutil.which("node"), "main.js"], environment, setup.work / "kinesis-local.log", PORT, folder)

    def prepare(self):
        self.kinesis = boto3.client(
            "kinesis", endpoint_url=URL, region_name=stream.REGION, aws_access_key_id="a", aws_secret_access_key="b"
        )
        self.arn = stream.create(self.kinesis)

    def settings(self):
        """The extension's environment."""
        return {
            **KEYS,
            "AWS_REGION": stream.REGION,
            "AWS_ENDPOINT_URL_KINESIS": URL,
            "KINESIS_TELEMETRY_STREAM": self.arn,
        }
