"""The crates that are in the program when it runs: no build tools, no procedural macros, and what cargo knows of each."""
import json
import pathlib
import re

from tools import PROGRAM, REPOSITORY, TARGETS, output

LINE = re.compile(r"(?P<depth>\d+)(?P<name>\S+) v(?P<version>\S+)(?P<rest>[^|]*)\|(?P<features>\S*)")
# Comments and strings, in which the word "unsafe" says nothing.
SILENT = re.compile(r'//[^\n]*|/\*.*?\*/|r(#*)".*?"\1|"(?:\\.|[^"\\])*"', re.DOTALL)
UNSAFE = re.compile(r"\bunsafe\b")


class Crate:
    def __init__(self, name, version):
        self.name, self.version = name, version
        self.parents, self.features = set(), set()
        # By architecture: what it needs may differ.
        self.children = {}

    def __repr__(self):
        return f"{self.name} {self.version}"

    @property
    def archs(self):
        return list(self.children)

    def describe(self, package, checksum):
        """Takes what cargo's metadata says of this crate."""
        self.licence = (package["license"] or "").replace("/", " OR ")
        self.source = package["source"]
        self.checksum = checksum
        self.folder = pathlib.Path(package["manifest_path"]).parent
        kinds = {kind for target in package["targets"] for kind in target["kind"]}
        self.build_script = "custom-build" in kinds
        self.links = package["links"]

    def unsafe_lines(self):
        """Lines of its sources, for all platforms, in which `unsafe` stands outside comments and strings."""
        lines = 0
        for file in (self.folder / "src").rglob("*.rs"):
            code = SILENT.sub(lambda silent: "\n" * silent[0].count("\n"), file.read_text(errors="replace"))
            lines += sum(1 for line in code.split("\n") if UNSAFE.search(line))
        return lines


def crates():
    """Every crate of the program, sorted, with the architectures that it is in; the first is the program itself."""
    found = {}
    for arch in TARGETS:
        read(arch, found)
    packages = {(package["name"], package["version"]): package for package in json.loads(metadata())["packages"]}
    checksums = locked()
    for key, crate in found.items():
        crate.describe(packages[key], checksums.get(key))
    return sorted(found.values(), key=lambda crate: (crate.name != PROGRAM, crate.name, crate.version))


def read(arch, found):
    """Adds one architecture's tree. From `cargo tree`, for cargo's metadata mixes in what the tests ask of a crate."""
    printed = output(
        "cargo", "tree", "--locked", "--package", PROGRAM, "--edges", "normal,no-proc-macro", "--target", TARGETS[arch],
        "--prefix", "depth", "--format", "{p}|{f}",
    )
    above = []
    for line in filter(None, printed.split("\n")):
        part = LINE.match(line)
        key = part["name"], part["version"]
        crate = found.setdefault(key, Crate(*key))
        crate.children.setdefault(arch, set())
        crate.features |= set(filter(None, part["features"].split(",")))
        del above[int(part["depth"]):]
        if above:
            crate.parents.add(above[-1])
            found[above[-1]].children[arch].add(key)
        above.append(key)


def metadata():
    """What cargo knows of every crate that one of the targets could need, as JSON."""
    platforms = [option for target in TARGETS.values() for option in ("--filter-platform", target)]
    return output("cargo", "metadata", "--locked", "--format-version", "1", *platforms)


def locked():
    """The checksum of each crate in Cargo.lock."""
    blocks = (REPOSITORY / "Cargo.lock").read_text().split("[[package]]")[1:]
    fields = [dict(re.findall(r'^(\w+) = "(.*)"$', block, re.MULTILINE)) for block in blocks]
    return {(field["name"], field["version"]): field.get("checksum") for field in fields}
