"""Clients of AWS for the scripts, and the progress of many calls at once."""
import concurrent.futures
import importlib.util
import os
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "layer"))

import tools

# Calls at a time: what an account's own limits on Lambda's API bear, with retries.
AT_ONCE = 8


def need_boto3():
    """Starts this script again with a Python that has boto3, pinned under target/tools, if this one has none."""
    if importlib.util.find_spec("boto3") is None:
        if not (tools.TOOLS / "aws/stamp").exists():
            print("installing boto3 under target/tools", file=sys.stderr, flush=True)
        python = tools.venv("aws") / "python"
        os.execv(python, [str(python), *sys.argv])


def client(service, region=None):
    """A client that waits and tries again when AWS throttles it. All settings of AWS's tools are honoured."""
    import boto3
    from botocore.config import Config

    # boto3 itself knows AWS_DEFAULT_REGION alone.
    region = region or os.environ.get("AWS_REGION")
    retries = {"mode": "adaptive", "max_attempts": 10}
    return boto3.client(service, region_name=region, config=Config(retries=retries, max_pool_connections=2 * AT_ONCE))


# Where scripts/deploy has put what the other scripts need.
PARAMETERS = "/telemetry/kinesis"


def parameter(name):
    """What scripts/deploy made in this account and region, or None."""
    ssm = client("ssm")
    try:
        return ssm.get_parameter(Name=f"{PARAMETERS}/{name}")["Parameter"]["Value"]
    except ssm.exceptions.ParameterNotFound:
        return None


def message(error):
    """What AWS or boto3 says is wrong, in one line."""
    return " ".join(str(error).split())


def progress(text):
    """One line on a terminal that is written over; an empty one in the end."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def at_once(function, items):
    """(item, result or exception) for each of `items`, as they are done."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        futures = {pool.submit(function, item): item for item in items}
        try:
            for future in concurrent.futures.as_completed(futures):
                error = future.exception()
                yield futures[future], future.result() if error is None else error
        except BaseException:
            # Ctrl-C: what runs is finished, nothing more is begun.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
