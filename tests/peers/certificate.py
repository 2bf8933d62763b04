"""A certificate authority of our own, and a certificate for a Kinesis on this machine."""
import subprocess

SUBJECTS = "DNS:localhost,IP:127.0.0.1,DNS:kinesis.us-east-1.amazonaws.com"


class Certificate:
    """PEM files: `authority` to trust, `leaf` and `key` for the server."""

    def __init__(self, folder):
        self.authority, self.leaf, self.key = (folder / f"{name}.pem" for name in ("authority", "leaf", "key"))
        authority_key = folder / "authority-key.pem"
        new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-x509"]
        openssl(
            *new_key, "-subj", "/CN=peers authority", "-keyout", authority_key, "-out", self.authority,
            "-addext", "keyUsage=critical,keyCertSign",
        )
        # A leaf of its own, not the authority itself: rustls takes no authority for a server.
        openssl(
            *new_key, "-subj", "/CN=localhost", "-keyout", self.key, "-out", self.leaf,
            "-CA", self.authority, "-CAkey", authority_key,
            "-addext", f"subjectAltName={SUBJECTS}", "-addext", "basicConstraints=critical,CA:FALSE",
        )


def openssl(*arguments):
    subprocess.run(["openssl", "req", *map(str, arguments)], check=True, capture_output=True, timeout=30)
