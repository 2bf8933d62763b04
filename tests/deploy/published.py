"""scripts/publish against the emulated AWS, in several of its regions: interrupted, continued, public or for an organisation."""
import base64
import hashlib
import json
import shutil

import tools
from emulation import Failure

PROGRAM = tools.REPOSITORY / "scripts/publish"
REGIONS = ["ap-southeast-2", "eu-central-1", "eu-west-1"]
ARCHITECTURES = ("x86_64", "arm64")
ORGANISATION = "o-abc1234567"


def check(setup):
    work = setup.work / "publish"
    work.mkdir()
    for architecture in ARCHITECTURES:
        shutil.copy(tools.LAYERS / f"kinesis-telemetry-extension-{architecture}.zip", work)

    def call(*arguments, code=0):
        command = [setup.bin / "python", PROGRAM, "--zips", work, "--name", "published", *arguments]
        said = setup.call("publish", command, 120, may_fail=True, **setup.moto.variables())
        if setup.code != code or "Traceback" in said:
            raise Failure(f"scripts/publish {' '.join(arguments)} ended with {setup.code}:\n{said}")
        return said

    def versions(architecture, region):
        layers = setup.moto.client("lambda", region).list_layer_versions(LayerName=f"published-{architecture}")
        return [version["LayerVersionArn"] for version in layers["LayerVersions"]]

    def statements(architecture, region):
        functions = setup.moto.client("lambda", region)
        try:
            policy = functions.get_layer_version_policy(LayerName=f"published-{architecture}", VersionNumber=1)["Policy"]
        except functions.exceptions.ResourceNotFoundException:
            return []
        return json.loads(policy)["Statement"]

    def expect(what, found, wanted):
        if found != wanted:
            raise Failure(f"{what} is {found!r}, not {wanted!r}")

    three = ["--regions", ",".join(REGIONS)]
    everywhere = call("--dry-run")
    expect("the number of regions", int(everywhere.split()[0]) > 10, True)
    expect("layers after a dry run", [versions("arm64", region) for region in REGIONS], [[], [], []])
    expect("files after a dry run", sorted(file.suffix for file in work.iterdir()), [".zip", ".zip"])

    # As if interrupted in the first region, before the second architecture and the permission.
    data = (work / "kinesis-telemetry-extension-x86_64.zip").read_bytes()
    setup.moto.client("lambda", REGIONS[0]).publish_layer_version(LayerName="published-x86_64", Content={"ZipFile": data})
    said = call(*three, "--organisation", ORGANISATION)
    expect("the summary", said.splitlines()[-1], "3 published")
    expect("the second time", call(*three, "--organisation", ORGANISATION).splitlines()[-1], "3 there already")
    written = json.loads((work / "layers.json").read_text())
    expect("layers.json", written["layers"], {region: {each: versions(each, region)[0] for each in ARCHITECTURES} for region in REGIONS})
    expect("hashes", written["sha256"]["x86_64"], hashlib.sha256(data).hexdigest())
    table = (work / "layers.md").read_text().splitlines()[2:]
    expect("the table", [row.split(" | ")[0] for row in table], [f"| {region}" for region in REGIONS])
    for region in REGIONS:
        for architecture in ARCHITECTURES:
            expect(f"versions in {region}", len(versions(architecture, region)), 1)
            (statement,) = statements(architecture, region)
            granted = (statement["Action"], statement["Principal"], statement["Condition"]["StringEquals"]["aws:PrincipalOrgID"])
            expect("who may use it", granted, ("lambda:GetLayerVersion", "*", ORGANISATION))
        layer = setup.moto.client("lambda", region).get_layer_version(LayerName="published-arm64", VersionNumber=1)
        expect("architectures", layer["CompatibleArchitectures"], ["arm64"])
        uploaded = hashlib.sha256((work / "kinesis-telemetry-extension-arm64.zip").read_bytes()).digest()
        expect("the uploaded zip", layer["Content"]["CodeSha256"], base64.b64encode(uploaded).decode())

    # The next release, in one region: the table does not mix them.
    with open(work / "kinesis-telemetry-extension-arm64.zip", "ab") as zipped:
        zipped.write(b"next")
    expect("the next release", call("--regions", REGIONS[1]).splitlines()[-1], "1 published")
    expect("regions of the next release", list(json.loads((work / "layers.json").read_text())["layers"]), [REGIONS[1]])
    expect("versions", [len(versions(each, REGIONS[1])) for each in ARCHITECTURES], [1, 2])

    call("--organisation", "o-1", code=2)
    call("--organisation", ORGANISATION, "--public", code=2)
    return f"{len(REGIONS)} regions, {everywhere.split()[0]} in a dry run"
