"""What the linters find and may stay, each with its reason. One that nothing matches any more is an error, so that the list stays short."""

# Of shellcheck: its rule, the file, and why.
SHELL = []

# Of bandit: its rule, the beginning of the file's path, and why.
PYTHON = [
    ("B404", "", "a script that runs other programs needs subprocess; how it calls them is looked at by B602 to B607"),
    ("B603", "", "no shell, and a list of arguments"),
    ("B606", "scripts/aws/", "a script starts itself again, with the Python that has boto3: no shell, and a list of arguments"),
    ("B310", "scripts/aws/release.py", "the URL is https, or http on the loopback: a pattern of the whole sees to it"),
    ("B607", "", "programs of the system are found over PATH, as a shell would find them"),
    ("B102", "tests/records/checks.py", "runs the example of the manual, to see that it does what it says"),
    ("B105", "tests/", "keys that no account has, for emulators"),
    ("B106", "tests/", "keys that no account has, for emulators"),
    ("B108", "tests/peers/", "the temporary folder of the emulated sandbox, in a mount namespace of its own"),
    ("B108", "tests/demo/", "the folder of another sandbox's extension on this machine, which no run may touch"),
    ("B318", "tests/records/", "parses a picture that the script beside it has drawn"),
    ("B408", "tests/records/", "parses a picture that the script beside it has drawn"),
    ("B324", "tests/records/", "MD5 is what Kinesis finds a record's shard by"),
]

# Of detect-secrets: its type, a pattern of the path, a pattern of the line, and why.
SECRETS = [
    ("AWS Access Key", r"", r"A[KS]IA[A-Z0-9]*EXAMPLE[A-Z0-9]*", "in the form of AWS's documentation: no account has it"),
    ("Base64 High Entropy String", r"", r"EXAMPLE", "in the form of AWS's documentation: no account has it"),
    ("Basic Auth Credentials", r"", r"://(user|CANARY):(secret|hidden|CANARY\w*)@", "that such a URL is never logged is what is tested"),
    ("Hex High Entropy String", r"^tests/(golden|sandbox)/", r"spanId|traceId|executionArn", "a trace's id"),
    ("Hex High Entropy String", r"/(sign|sigv4)\.rs$", r"let (signature|hash|empty) = ", "a hash or signature that must come out"),
    ("Hex High Entropy String", r"^tests/peers/install\.py$", r"", "the checksum of a pinned program"),
    ("Secret Keyword", r"^tests/", r"\"(test|example|of another key|do not print this)\"|EXAMPLE", "for emulators"),
]
