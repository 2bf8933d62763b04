"""scripts/audit: green as things are, and red for each thing that it should see."""
import contextlib
import copy
import functools
import io
import json
import os
import re
import shutil
import subprocess
from unittest import mock

import bill
import layers
import tree
from harness import Failure, expect, run
from tools import LAYERS, PROGRAM, REPOSITORY, TARGETS, script, venv

# A crate of the program that nothing else is called like, to be given bad qualities.
VICTIM = "httpdate"
# An entry of RustSec's database.
ENTRY = """```toml
[advisory]
id = "RUSTSEC-2026-9999"
package = "{}"
date = "2026-01-01"

[versions]
patched = []
```

# Made up
"""


@functools.cache
def audit():
    return script("audit")


def the_audit_is_green():
    said = run("scripts/audit")
    expect(said.rstrip().endswith("all green"), said)
    number = re.search(r"x86_64: (\d+) crates", said)
    unchecked = "NOT CHECKED" in said
    expect(unchecked or "vulnerabilities: none known" in said, said)
    lines = [line for line in said.splitlines() if line.startswith("rustls ")]
    expect(len(lines) == 1 and "Apache-2.0 OR ISC OR MIT" in lines[0] and lines[0].split()[-1] == "kinesis-telemetry-extension", f"rustls's line: {lines}")
    return f"{number[1]} crates, vulnerabilities {'not checked' if unchecked else 'none known'}"


def the_bill_of_materials_is_whole():
    crates = tree.crates()
    checksums = tree.locked()
    for arch in TARGETS:
        text = bill.text(crates, arch)
        expect(text == bill.text(tree.crates(), arch), "two bills of the same differ")
        parsed = json.loads(text)
        expect((parsed["bomFormat"], parsed["specVersion"]) == ("CycloneDX", "1.6"), "no CycloneDX 1.6")
        known = [component["bom-ref"] for component in [parsed["metadata"]["component"], *parsed["components"]]]
        expect(len(known) == len(set(known)), "a component is there twice")
        for link in parsed["dependencies"]:
            expect({link["ref"], *link["dependsOn"]} <= set(known), f"{link} names what is not there")
        reached = {link["ref"] for link in parsed["dependencies"]} | {ref for link in parsed["dependencies"] for ref in link["dependsOn"]}
        expect(reached == set(known), f"{set(known) - reached} hangs on nothing")
        for component in parsed["components"]:
            expect(component["licenses"][0]["expression"], f"{component['name']} has no licence")
            if "hashes" in component:
                expect(component["hashes"][0]["content"] == checksums[component["name"], component["version"]], component["name"])
        expect((LAYERS / f"{PROGRAM}-{arch}.cdx.json").read_text() == text, "scripts/audit wrote another one")
    return f"{len(known)} components"


def each_rule_bites():
    """Metadata with one thing wrong at a time; cargo-deny must fail and say that thing's name."""
    good = json.loads(tree.metadata())
    cases = {
        "an unwanted crate": (renamed("hyper"), "hyper"),
        "OpenSSL": (renamed("openssl"), "openssl"),
        "aws-lc": (renamed("aws-lc-rs"), "aws-lc-rs"),
        "an AWS SDK": (renamed("aws-sdk-kinesis"), "aws-sdk-kinesis"),
        "another licence": (changed(license="GPL-3.0-only"), "GPL-3.0-only"),
        "another source": (sourced("git+https://example.com/httpdate?rev=0123456#0123456"), "example.com"),
        "another registry": (sourced("registry+https://example.com/index"), "example.com"),
        "tokio's runtime": (with_feature("tokio", "rt"), "rt"),
    }
    place = REPOSITORY / "target/layer/broken-metadata.json"
    place.write_text(json.dumps(good))
    with contextlib.redirect_stdout(io.StringIO()):
        expect(audit().ruled_out(place) == [], "the metadata as it is should pass")
    for name, (change, named) in cases.items():
        place.write_text(change(json.dumps(good)))
        found = audit().ruled_out(place)
        expect(found and named in found[0], f"{name} was not seen: {found}")
    place.unlink()
    crates = tree.crates()
    expect(audit().twice(crates) == [] and audit().too_many(crates) == [], "the tree as it is should pass")
    other = copy.copy(crates[-1])
    other.version = "0.0.0"
    expect(audit().twice([*crates, other])[0].startswith(f"{other.name} is there in 2 versions"), "two versions were not seen")
    expect("the budget is 76" in audit().too_many(crates * 2)[0], "too many crates were not seen")
    return f"{len(cases) + 2} rules"


def a_known_vulnerability_is_seen():
    """A database with one made-up entry, in place of RustSec's, which may not be reachable: first on a crate of the program."""
    place = LAYERS / "advisories"
    shutil.rmtree(place, ignore_errors=True)
    address = "https://example.com/advisories"
    ours = f'db-path = "{place}/fetched"\ndb-urls = ["{address}"]\ngit-fetch-with-cli = true'
    rules = re.sub(r"^db-path = .*$", ours, audit().RULES.read_text(), flags=re.MULTILINE)
    environment = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.file://{place}/made-up.insteadOf", "GIT_CONFIG_VALUE_0": address}
    known = place / "metadata.json"
    said = []
    for crate in (VICTIM, "not-in-the-program"):
        database(place / "made-up", crate)
        (place / "deny.toml").write_text(rules)
        known.write_text(tree.metadata())
        with mock.patch.object(audit(), "RULES", place / "deny.toml"), mock.patch.dict(os.environ, environment):
            found = []
            said.append((audit().vulnerabilities(known, found), found))
    (seen, why), unseen = said
    expect(seen == "found, see below" and len(why) == 1 and "RUSTSEC-2026-9999" in why[0], f"{VICTIM}'s was not seen: {said[0]}")
    expect(unseen == ("none known", []), f"{unseen}")
    shutil.rmtree(place)
    return "a made-up one; none where it is another crate's"


def a_release_waits_for_advisories():
    unchecked = f"{audit().UNCHECKED} no reason ***"
    with contextlib.redirect_stdout(io.StringIO()) as said:
        expect(audit().not_looked_up("none known") == [], "advisories that were looked up keep a release back")
        for waiver, refused in (None, 1), ("yes", 1), ("", 1), (audit().WAIVER, 0):
            with mock.patch.dict(os.environ, {} if waiver is None else {"WAIVE_ADVISORIES": waiver}):
                expect(len(audit().not_looked_up(unchecked)) == refused, f"WAIVE_ADVISORIES={waiver}")
    expect("WAIVED" in said.getvalue(), "a waiver says nothing")
    return "unless waived in so many words"


def the_program_itself_can_be_scanned():
    """What a person with nothing but the program would do: `cargo audit bin`. RustSec's own database may not be reachable here."""
    layers.built()
    place = LAYERS / "advisories"
    said = []
    for arch in TARGETS:
        program = str(LAYERS / arch / layers.INSIDE)
        for crate in (VICTIM, "not-in-the-program"):
            database(place, crate)
            command = [venv("audit") / "cargo-audit", "audit", "--no-fetch", "--stale", "--no-yanked", "--db", place, "bin", program]
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
            expect("Found 'cargo auditable' data" in done.stderr, f"cargo-audit does not find the list of crates in the program:\n{done.stderr}")
            found = "RUSTSEC-2026-9999" in done.stdout + done.stderr
            expect((done.returncode, found) == ((1, True) if crate == VICTIM else (0, False)), f"{crate}: {done.stdout}{done.stderr}")
        said.append(arch)
    shutil.rmtree(place)
    return f"{' and '.join(said)}: a made-up advisory is found; *** RustSec's own are looked up by scripts/audit alone ***"


def database(folder, crate):
    """A git repository in the form of RustSec's, with one entry."""
    shutil.rmtree(folder, ignore_errors=True)
    entry = folder / "crates" / crate / "RUSTSEC-2026-9999.md"
    entry.parent.mkdir(parents=True)
    entry.write_text(ENTRY.format(crate))
    git = ["git", "-C", str(folder), "-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    for command in (["init", "--quiet", "--initial-branch", "main"], ["add", "."], ["commit", "--quiet", "--message", "One entry"]):
        run(*git, *command, timeout=60)


def renamed(name):
    """Metadata in which the victim has another name, and what else has that name a third one."""
    def change(text):
        return re.sub(rf"\b{VICTIM}\b", name, re.sub(rf"(?<![\w-]){name}(?![\w-])", f"{name}-other", text))
    return change


def changed(**fields):
    def change(text):
        parsed = json.loads(text)
        victim(parsed, VICTIM).update(license_file=None, **fields)
        return json.dumps(parsed)
    return change


def sourced(source):
    """Metadata in which the victim comes from elsewhere; its id holds the source as well."""
    def change(text):
        parsed = json.loads(text)
        package = victim(parsed, VICTIM)
        old = package["id"]
        package["source"] = source
        return json.dumps(parsed).replace(json.dumps(old), json.dumps(old.replace(old.split("#")[0], source.split("#")[0])))
    return change


def with_feature(name, feature):
    """Metadata in which whoever needs the crate asks for that feature."""
    def change(text):
        parsed = json.loads(text)
        wanted = victim(parsed, name)["id"]
        for package in parsed["packages"]:
            for dependency in package["dependencies"]:
                if dependency["name"] == name and dependency["kind"] is None:
                    dependency["features"].append(feature)
        for node in parsed["resolve"]["nodes"]:
            if node["id"] == wanted:
                node["features"].append(feature)
        return json.dumps(parsed)
    return change


def victim(parsed, name):
    found = [package for package in parsed["packages"] if package["name"] == name]
    if len(found) != 1:
        raise Failure(f"{len(found)} crates are called {name}; choose another one for this check")
    return found[0]


CHECKS = [the_audit_is_green, the_bill_of_materials_is_whole, each_rule_bites, a_known_vulnerability_is_seen, a_release_waits_for_advisories, the_program_itself_can_be_scanned]
