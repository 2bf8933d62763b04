"""Checks the extension's variables by the program's own table, before a function has them.

The table is settings.json: what `kinesis-telemetry-extension --help` says is allowed. A test writes and compares it, as it does
with scripts/cdk/settings.ts, and another one compares the verdicts of this module with those of the program.
"""
import json
import pathlib
import re

PREFIX = "KINESIS_TELEMETRY_"
STREAM = r"[\w.-]{1,128}|arn:aws[a-z-]*:kinesis:[a-z0-9-]+:[0-9]{12}:stream/[\w.-]{1,128}"
TABLE = {row["name"]: row for row in json.loads(pathlib.Path(__file__).with_name("settings.json").read_text())}


def unknown(name):
    """Why there is no such setting, or None. `name` is without the prefix."""
    return None if name in TABLE or name == "STREAM" else f"{PREFIX}{name}: no such setting; there are {', '.join(TABLE)}"


def problems(variables):
    """A sentence for each variable that the extension would refuse. Shows no value: it may be a secret."""
    given = {name.removeprefix(PREFIX): value for name, value in variables.items() if name.startswith(PREFIX) and value}
    found = [f"{PREFIX}{name}: allowed is {row['allowed']}" for name, row in TABLE.items() if name in given and not fits(row, given[name])]
    if "STREAM" in given and not re.fullmatch(STREAM, given["STREAM"].strip(), re.ASCII):
        found.append(f"{PREFIX}STREAM: allowed is a stream name or stream ARN")
    return found


def conflicts(variables):
    """As `problems`, of variables that are allowed alone and not together."""
    given = {name.removeprefix(PREFIX): value for name, value in variables.items() if value}
    found = []
    if "EXTERNAL_ID" in given and "ROLE_ARN" not in given:
        found.append(f"{PREFIX}EXTERNAL_ID: allowed is with {PREFIX}ROLE_ARN only")
    types = [word.strip().lower() for word in given.get("TYPES", "").split(",")]
    if given.get("FALLBACK", "").strip().lower() == "log" and "extension" in types:
        found.append(f"{PREFIX}FALLBACK: allowed is log only without `extension` in {PREFIX}TYPES")
    return found


def fits(row, value):
    allowed = row["allowed"]
    if "pattern" in row:
        # The program takes a role's ARN with blanks around it, and an external id as it is.
        return bool(re.fullmatch(row["pattern"], value if row["name"] == "EXTERNAL_ID" else value.strip(), re.ASCII))
    if numbers := re.fullmatch(r"(\d+) to (\d+)(?:, not (\d+))?", allowed):
        least, most, never = (number and int(number) for number in numbers.groups())
        return bool(re.fullmatch(r"[0-9]{1,20}", value.strip())) and least <= int(value) <= most and int(value) != never
    if allowed == "key=value,key=value":
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        keys = [key.strip() for key, _, _ in pairs]
        return all(keys) and all(equals for _, equals, _ in pairs) and len(set(keys)) == len(keys)
    some = allowed.startswith("any of ")
    words = allowed.removeprefix("any of ").lower().split(", ")
    return all(word.strip().lower() in words for word in (value.split(",") if some else [value]))
