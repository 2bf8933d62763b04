"""moto as an AWS on this machine's loopback, and its clients."""
import contextlib
import socket
import sys

import tools

sys.path += [str(tools.HERE.parent), str(tools.HERE.parent / "peers")]
from process import Failure, Process

REGION, ACCOUNT = "us-east-1", "123456789012"


class Moto(Process):
    """The patched moto server of `moto_server.py`, on a free port."""

    def __init__(self, work, python):
        with contextlib.closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [python, tools.HERE / "moto_server.py", "-H", "127.0.0.1", "-p", port]
        environment = {"HOME": str(work), "AWS_EC2_METADATA_DISABLED": "true", **tools.BYTECODE}
        super().__init__(command, environment, work / "moto.log", port)

    def variables(self):
        """What AWS's tools need to talk to it."""
        return {
            "AWS_ENDPOINT_URL": f"http://localhost:{self.port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            # Version 1 of the aws CLI knows this name only.
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service, region=REGION):
        import boto3

        return boto3.client(
            service,
            endpoint_url=f"http://localhost:{self.port}",
            region_name=region,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
