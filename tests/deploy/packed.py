"""The CDK construct as a package: what npm would publish, taken by somebody else's program, and jsii's compiler on its types."""
import json
import os
import re
import shutil
import tarfile
import tomllib

import tools
from emulation import Failure

LIBRARY = ("index", "extension", "layer", "settings")
# What jsii wants to know of a package, beside what npm wants to know.
FOR_JSII = {
    "author": {"name": "somebody"},
    "repository": {"type": "git", "url": "https://example.com/somebody/something.git"},
    "stability": "stable",
    "main": "index.js",
    "types": "index.d.ts",
    "jsii": {"outdir": "assembly", "targets": {}},
}
USER = """
const { App, Stack, aws_lambda: lambda } = require('aws-cdk-lib');
const { KinesisTelemetryExtension } = require('kinesis-telemetry-extension-cdk');
const stack = new Stack(new App(), 'Theirs');
const code = lambda.Code.fromInline('exports.handler = async () => {}');
const fn = new lambda.Function(stack, 'Fn', { runtime: lambda.Runtime.NODEJS_24_X, handler: 'index.handler', code });
KinesisTelemetryExtension.fromSsm(stack, 'Telemetry').attachTo(fn, { settings: { flush: 'end' } });
console.log(Object.keys(require('kinesis-telemetry-extension-cdk')).sort().join(' '));
"""


def check(setup):
    """`types` has compiled it."""
    package = json.loads((tools.APP / "package.json").read_text())
    version = tomllib.loads((tools.REPOSITORY / "Cargo.toml").read_text())["package"]["version"]
    expect("the package's version", package["version"], version)
    expect("its own version in the lock file", json.loads((tools.APP / "package-lock.json").read_text())["version"], version)
    files = published(setup)
    types = jsii(setup, package)
    return f"{files} files published, {types} types for jsii"


def published(setup):
    """npm packs it; a program beside its peers takes it from there."""
    place = setup.work / "package"
    module = place / "node_modules/kinesis-telemetry-extension-cdk"
    module.parent.mkdir(parents=True)
    said = setup.call("pack", ["npm", "pack", "--json", "--pack-destination", place], 60, folder=tools.APP)
    (packed,) = json.loads(said[said.index("[\n") :])
    wanted = {"README.md", "package.json", *(f"dist/{name}{ending}" for name in LIBRARY for ending in (".js", ".d.ts"))}
    expect("what is published", {file["path"] for file in packed["files"]}, wanted)
    with tarfile.open(place / packed["filename"]) as archive:
        archive.extractall(place, filter="data")
    (place / "package").rename(module)
    for peer in ("aws-cdk-lib", "constructs"):
        (module.parent / peer).symlink_to(tools.CDK / "node_modules" / peer)
    (place / "user.js").write_text(USER)
    # Node takes a link for what it points to, and there CDK's own dependencies lie.
    said = setup.call("user", ["node", "user.js"], 60, folder=place)
    expect("what the package exports", said.split(), ["KinesisTelemetryExtension", "TelemetryExtension"])
    return len(wanted)


def jsii(setup, package):
    """Its types can be had in Python, Java, .NET and Go: jsii's compiler finds no error."""
    place = setup.work / "jsii"
    place.mkdir()
    for name in LIBRARY:
        shutil.copy(tools.REPOSITORY / f"scripts/cdk/{name}.ts", place)
    shutil.copy(tools.REPOSITORY / "scripts/cdk/README.md", place)
    kept = {key: value for key, value in package.items() if key not in ("exports", "files")}
    (place / "package.json").write_text(json.dumps({**kept, **FOR_JSII}))
    os.symlink(tools.CDK / "node_modules", place / "node_modules")
    compiler = tools.ROOT / "npm/node_modules/.bin/jsii"
    said = setup.call("jsii", [compiler], 120, folder=place, JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION="1")
    if not re.search(r"Errors: 0 \| Warnings: 0", said):
        raise Failure(f"jsii says:\n{said}")
    types = json.loads((place / ".jsii").read_text())["types"]
    expect("the construct among jsii's types", f"{package['name']}.KinesisTelemetryExtension" in types, True)
    return len(types)


def expect(what, found, wanted):
    if found != wanted:
        raise Failure(f"{what} is {found!r}, not {wanted!r}")
