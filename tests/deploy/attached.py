"""scripts/attach against the emulated AWS: functions of every kind, attached, attached again, detached, as found before."""
import itertools
import json
import re
import sys

import tools
from emulation import Failure
from fleet import Fleet, THEIRS

sys.path.append(str(tools.REPOSITORY / "scripts/aws"))
import attachment
import settings

PROGRAM = tools.REPOSITORY / "scripts/attach"
TEAM = {"team": "payments"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kinesis:PutRecords", "Resource": "*"}]})


def expect(what, found, wanted):
    if found != wanted:
        raise Failure(f"{what} is {found!r}, not {wanted!r}")


def check(setup):
    """With the layers, the stream and the policy that scripts/deploy has made."""
    attached = Attached(setup)
    names = ["other", "crowded", "pair-1", "pair-2", "picture", "old"]
    attached.prepare()
    found = {name: attached.fleet.look(name) for name in names}
    attached.dry_run(found)
    attached.attach()
    attached.again()
    attached.refusals(found)
    attached.detach(found)
    attached.without_state()
    attached.by_other_names()
    attached.fleet.delete([*names, "plain"])
    planned = plans()
    return f"{len(names) + 1} functions, {planned} plans"


class Attached:
    def __init__(self, setup):
        self.setup, self.fleet = setup, Fleet(setup.moto.client)
        ssm = setup.moto.client("ssm")
        read = lambda name: ssm.get_parameter(Name=f"/telemetry/kinesis/{name}")["Parameter"]["Value"]
        self.x86, self.arm = read("extension/x86_64/arn"), read("extension/arm64/arn")
        self.stream, self.policy = read("stream/arn"), read("runtime/policy/arn")
        self.state = setup.work / "attach-state"

    def call(self, *arguments, code=0):
        command = [self.setup.bin / "python", PROGRAM, "--state", self.state, *arguments]
        said = self.setup.call("attach", [*command], 60, may_fail=True, **self.setup.moto.variables())
        if "do not print this" in said or "Traceback" in said:
            raise Failure(f"scripts/attach {' '.join(map(str, arguments))} says:\n{said}")
        expect(f"exit code of scripts/attach {' '.join(map(str, arguments))}:\n{said}\n", self.setup.code, code)
        return said

    def prepare(self):
        fleet = self.fleet
        layers = [fleet.layer(f"theirs-{number}") for number in range(5)]
        fleet.function("other", "arm64", layers[:2], tags=TEAM)
        fleet.function("crowded", layers=layers, tags=TEAM)
        fleet.function("pair-1", role="shared")
        fleet.function("pair-2", role="shared")
        fleet.image("picture")
        # As somebody attached it by hand, an older layer in front of a layer of their own.
        old = {**THEIRS, "KINESIS_TELEMETRY_STREAM": "of-old", "KINESIS_TELEMETRY_FLUSH": "next"}
        fleet.function("old", layers=[fleet.layer("kinesis-telemetry-extension-x86_64"), layers[0]], variables=old)

    def dry_run(self, found):
        said = self.call("--dry-run", "other", "old", "pair-1")
        expect("functions after --dry-run", {name: self.fleet.look(name) for name in found}, found)
        expect("what --dry-run says it would change", said.count(": to change ("), 3)
        expect("files of --dry-run", self.state.exists(), False)

    def attach(self):
        said = self.call("--all", "--tag", "team=payments", "--set", "FLUSH=end", code=1)
        expect("the summary", said.splitlines()[-1], "1 attached, 1 refused")
        if "crowded: refused: has 5 layers already" not in said:
            raise Failure(f"not told why a function is refused:\n{said}")
        other = self.fleet.look("other")
        expect("the last layer", other["layers"][2:], [self.arm])
        expect("the first layers", [arn.split(":")[-2] for arn in other["layers"][:2]], ["theirs-0", "theirs-1"])
        variables = {**THEIRS, "KINESIS_TELEMETRY_STREAM": self.stream, "KINESIS_TELEMETRY_FLUSH": "end"}
        expect("variables", other["variables"], variables)
        expect("policies", other["policies"], [self.policy])
        self.call("pair-1", "pair-2", "old")
        old = self.fleet.look("old")
        expect("the older version's place", (old["layers"][0], len(old["layers"])), (self.x86, 2))
        expect("a setting that --set does not name", old["variables"]["KINESIS_TELEMETRY_FLUSH"], "next")
        (file,) = self.state.glob("*/function-other.json")
        expect("mode of the saved state", oct(file.stat().st_mode & 0o777), oct(0o600))
        expect("variables of theirs in the saved state", "PRIVATE" in file.read_text(), False)

    def again(self):
        expect("the second time", self.call("other", "--set", "FLUSH=end").splitlines()[-1], "1 unchanged")
        self.call("other", "--set", "FLUSH=next")
        other = self.fleet.look("other")
        expect("a setting changed later", other["variables"]["KINESIS_TELEMETRY_FLUSH"], "next")
        expect("layers after three times", len(other["layers"]), 3)

    def refusals(self, found):
        said = self.call("picture", "missing", code=1)
        for word in ("picture: refused: is a container image", "recipes.md", "missing: failed: ", "1 failed, 1 refused"):
            if word not in said:
                raise Failure(f"scripts/attach does not say {word!r}:\n{said}")
        for name in ("picture", "crowded"):
            expect(f"{name}, which was refused", self.fleet.look(name), found[name])
        wrong = (["FLUSH=sometimes"], ["FLSH=end"], ["MAX_AGE_MS=99", "PORT=9001"])
        for pairs in wrong:
            said = self.call("other", *(word for pair in pairs for word in ("--set", pair)), code=2)
            expect(f"names in {said}", [pair.partition("=")[0] for pair in pairs if f"KINESIS_TELEMETRY_{pair.partition('=')[0]}: " not in said], [])
        mistakes = (["--all"], ["other", "--tag", "a=b"], [], ["other", "--set", "FLUSH"], ["other", "--set", "STREAM=x"], ["other", "--stream", "a b"])
        for arguments in mistakes:
            self.call(*arguments, code=2)
        self.broken_role()
        expect("a tag that nobody has", "no function has these tags" in self.call("--all", "--tag", "team=nobody", code=1), True)

    def broken_role(self):
        """A role that can't get the policy is the business of its own functions alone."""
        self.fleet.function("orphan")
        self.fleet.iam.delete_role(RoleName="role-of-orphan")
        del self.fleet.roles["role-of-orphan"]
        read = lambda: self.fleet.functions.get_function_configuration(FunctionName="orphan")
        before = read()
        said = self.call("orphan", "other", "arn:aws:lambda:us-east-1:123456789012:function:other", "--set", "FLUSH=end", code=1)
        expect("the summary", said.splitlines()[-1], "1 attached, 1 failed")
        expect("the count, of a function that was named twice", "[2/2] " in said and "/3] " not in said, True)
        expect("a function whose role is not there", read()["Environment"], before["Environment"])
        expect("its state", [str(file) for file in self.state.glob("*/*orphan*")], [])
        self.fleet.functions.delete_function(FunctionName="orphan")

    def detach(self, found):
        self.call("--detach", "pair-1")
        expect("the other function's policy, which it still needs", self.fleet.look("pair-2")["policies"], [self.policy])
        expect("a dry run's word", "to change" in self.call("--detach", "--dry-run", "pair-2"), True)
        self.call("--detach", "pair-2", "other", "old")
        expect("functions after --detach", {name: self.fleet.look(name) for name in found}, found)
        expect("files left behind", [str(file) for file in self.state.rglob("*.json")], [])
        expect("the second --detach of what nobody attached", self.call("--detach", "other").splitlines()[-1], "1 unchanged")

    def without_state(self):
        self.call("other")
        for file in self.state.rglob("*.json"):
            file.unlink()
        self.call("--detach", "other")
        other = self.fleet.look("other")
        expect("layers and variables detached without state", (len(other["layers"]), other["variables"]), (2, THEIRS))
        expect("the policy, which somebody else may have attached", other["policies"], [self.policy])
        self.fleet.iam.detach_role_policy(RoleName="role-of-other", PolicyArn=self.policy)

    def by_other_names(self):
        """Nothing from SSM: a layer with a name of its own, in two versions, and `layers.json`."""
        fleet, stream = self.fleet, ["--stream", "arn:aws:kinesis:eu-west-1:210987654321:stream/central"]
        fleet.function("plain")
        before = fleet.look("plain")
        first, second = (fleet.layer("ours-by-another-name", CompatibleArchitectures=["x86_64"]) for _ in range(2))
        self.call("plain", "--layer", first, "--policy", "none", *stream)
        self.call("plain", "--layer", second, "--policy", "none", *stream)
        expect("layers", fleet.look("plain")["layers"], [second])
        expect("policies", fleet.look("plain")["policies"], [])
        others = [fleet.iam.create_policy(PolicyName=f"write-{number}", PolicyDocument=POLICY)["Policy"]["Arn"] for number in range(2)]
        for other in others:
            self.call("plain", "--layer", second, "--policy", other, *stream)
        expect("policies", sorted(fleet.look("plain")["policies"]), others)
        self.call("--detach", "plain")
        expect("a function detached", fleet.look("plain"), before)
        for other in others:
            fleet.iam.delete_policy(PolicyArn=other)
        file = self.setup.work / "layers.json"
        file.write_text(json.dumps({"layers": {"us-east-1": {"x86_64": self.x86}}}))
        self.call("plain", "--layers", file, *stream, "--set", "ROLE_ARN=arn:aws:iam::210987654321:role/writer")
        expect("layers", fleet.look("plain")["layers"], [self.x86])
        expect("policies", fleet.look("plain")["policies"], [])


ROLE = "arn:aws:iam::123456789012:role/a/writer"
TEXTS = {
    "STREAM": ["s", "a b", "arn:aws:kinesis:eu-west-1:123456789012:stream/s", "arn:aws:kinesis:eu-west-1:12:stream/s", "arn:aws:iam::123456789012:role/x", "x" * 129],
    "ROLE_ARN": [ROLE, f" {ROLE} ", "writer", "arn:aws:iam::123:role/writer", "arn:aws:iam::123456789012:role/", f"{ROLE} b", "arn:aws:iam::123456789012:user/x"],
    "EXTERNAL_ID": ["ab", "a", "x" * 1224, "x" * 1225, "a b", "_+=,.@:/-", "a*", "ab\n"],
    "EXCLUDE": ["platform.start", "platform.init*, platform.extension ,", "platform.*", "a b", "a*b", "plattform/start"],
    "KEEP": ["5%", "0.5%", " 5 % ", "100%", "100.0%", "0%", "100.5%", "101%", "5", "-1%", ".5%", "5.%", "1e1%"],
    "TAGS": ["a=b", "a=b,c=", "a", "=b", " =b", "a=b,a=c", "a=b, a=c", "a=b,,", "a=b=c", ","],
}


def values(setup):
    """--set is refused exactly where the program would refuse the variable, in every setting."""
    rows = {name: tried(row) for name, row in {"STREAM": {"allowed": ""}, **settings.TABLE}.items()}
    for name in rows:
        rows[name] = TEXTS.get(name) or rows[name]
    nobody = {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    good = {"STREAM": "s", "ROLE_ARN": ROLE}
    count = refused = 0
    for batch in itertools.zip_longest(*rows.values()):
        given = {**good, **{name: value for name, value in zip(rows, batch) if value is not None}}
        # Two that are refused together, whatever their values.
        if given.get("FALLBACK", "").lower() == "log":
            given["TYPES"] = "platform"
        variables = {f"KINESIS_TELEMETRY_{name}": value for name, value in given.items()}
        said = setup.call("values", ["env", "-i", *(f"{name}={value}" for name, value in {**nobody, **variables}.items()), setup.binary, "--check"], 20, may_fail=True)
        program = set(re.findall(r"settings: (KINESIS_TELEMETRY_\w+)", said))
        ours = {problem.partition(":")[0] for problem in [*settings.problems(variables), *settings.conflicts(variables)]}
        expect(f"what scripts/attach refuses of {variables}", ours, program)
        count, refused = count + len(given), refused + len(program)
    for alone in ({"EXTERNAL_ID": "ab"}, {"FALLBACK": "log", "TYPES": "function, Extension"}):
        variables = {f"KINESIS_TELEMETRY_{name}": value for name, value in {"STREAM": "s", **alone}.items()}
        said = setup.call("values", ["env", "-i", *(f"{name}={value}" for name, value in {**nobody, **variables}.items()), setup.binary, "--check"], 20, may_fail=True)
        expect(f"conflicts of {variables}", [problem.partition(":")[0] for problem in settings.conflicts(variables)], re.findall(r"settings: (KINESIS_TELEMETRY_\w+)", said))
    return f"{count} values, {refused} of them refused"


def tried(row):
    """Values at and beyond the bounds of what a row allows."""
    if numbers := re.fullmatch(r"(\d+) to (\d+)(?:, not (\d+))?", row["allowed"]):
        least, most = int(numbers[1]), int(numbers[2])
        return [str(least), str(most), str(least - 1), str(most + 1), f" {least} ", f"{least}.0", "", "1e3", numbers[3] or "x", "9" * 30]
    words = row["allowed"].removeprefix("any of ").split(", ")
    return [*words, words[0].upper(), f" {words[-1]} ", "banana", ",".join(words), f"{words[0]},banana", ""]


def plans():
    """What no emulator enforces: limits, and functions that may not be touched."""
    wanted = attachment.Wanted({"x86_64": "arn:aws:lambda:eu-west-1:1:layer:kinesis-telemetry-extension-x86_64:3"}, {"KINESIS_TELEMETRY_STREAM": "s"})
    layer = {"Arn": "arn:aws:lambda:eu-west-1:1:layer:theirs:1", "CodeSize": 200_000_000}
    big = "x" * (attachment.MOST_VARIABLE_BYTES - len("MINE") - len("KINESIS_TELEMETRY_STREAMs"))
    fits = {"CodeSize": 60_000_000, "Layers": [layer], "Environment": {"Variables": {"MINE": big}}}
    if attachment.attach(fits, wanted).layers != [layer["Arn"], wanted.layers["x86_64"]]:
        raise Failure("a function just below the limits is not attached to")
    refused = {
        "bytes of code and layers": {**fits, "CodeSize": 61_000_000},
        "bytes of variables": {**fits, "Environment": {"Variables": {"MINE": big + "x"}}},
        "variables can't be read": {"Environment": {"Error": {"ErrorCode": "AccessDeniedException", "Message": "kms"}}},
        "is version 7": {"Version": "7"},
        "its state is Pending": {"State": "Pending"},
        "there is no layer for that": {"Architectures": ["arm64"]},
        "KINESIS_TELEMETRY_FLUSH: allowed is adaptive, end, next": {"Environment": {"Variables": {"KINESIS_TELEMETRY_FLUSH": "sometimes"}}},
        "KINESIS_TELEMETRY_EXTERNAL_ID: allowed is with KINESIS_TELEMETRY_ROLE_ARN only": {"Environment": {"Variables": {"KINESIS_TELEMETRY_EXTERNAL_ID": "ab"}}},
    }
    for message, configuration in refused.items():
        try:
            attachment.attach(configuration, wanted)
        except attachment.Refused as error:
            if message not in str(error):
                raise Failure(f"refused for another reason than {message!r}: {error}") from None
        else:
            raise Failure(f"not refused: {message}")
    return len(refused) + 1
