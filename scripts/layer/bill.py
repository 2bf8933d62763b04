"""What is in a layer, for machines: a CycloneDX bill of materials, and the list of crates that the program carries."""
import json
import pathlib
import re
import subprocess

from tools import PROGRAM

# How Cargo.lock marks what comes from a registry; scripts/audit refuses any other than Rust's own.
REGISTRY = "registry+"


def text(crates, arch):
    return json.dumps(cyclonedx(crates, arch), indent=1) + "\n"


def cyclonedx(crates, arch):
    """The bill for one architecture. It depends on Cargo.lock, the compiler's version and the pinned tools, on nothing else."""
    crates = [crate for crate in crates if arch in crate.archs]
    program, others = crates[0], crates[1:]
    links = [{"ref": purl(crate), "dependsOn": sorted(map(reference, crate.children[arch]))} for crate in crates]
    links[0]["dependsOn"] += [component["bom-ref"] for component in toolchain()]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": purl(program),
                "name": program.name,
                "version": program.version,
                "licenses": [{"expression": program.licence}],
                "purl": purl(program),
                "properties": [{"name": "arch", "value": arch}],
            },
        },
        "components": [*map(component, others), *toolchain()],
        "dependencies": links,
    }


def component(crate):
    return {
        "type": "library",
        "bom-ref": purl(crate),
        "name": crate.name,
        "version": crate.version,
        "scope": "required",
        "hashes": [{"alg": "SHA-256", "content": crate.checksum}],
        "licenses": [{"expression": crate.licence}],
        "purl": purl(crate),
    }


def toolchain():
    """What is linked in beside the crates: Rust's standard library, and the C library that comes with the linker."""
    release = re.search(r"^release: (\S+)$", subprocess.check_output(["rustc", "-vV"], text=True), re.MULTILINE)[1]
    pins = pathlib.Path(__file__).with_name("requirements") / "build.txt"
    zig = re.search(r"^ziglang==(\S+)", pins.read_text(), re.MULTILINE)[1]
    return [
        {
            "type": "library", "bom-ref": f"rust-std@{release}", "name": "rust-std", "version": release,
            "description": "Rust's standard library", "licenses": [{"expression": "MIT OR Apache-2.0"}],
        },
        {
            "type": "library", "bom-ref": f"pkg:pypi/ziglang@{zig}", "name": "ziglang", "version": zig,
            "description": "musl and compiler-rt, as they come with Zig",
            "licenses": [{"expression": "MIT"}], "purl": f"pkg:pypi/ziglang@{zig}",
        },
    ]


def purl(crate):
    return reference((crate.name, crate.version))


def reference(key):
    return "pkg:cargo/{}@{}".format(*key)


def auditable(crates, arch):
    """The list that `cargo auditable` puts into a program, as scanners look for it: the same form, without build-time crates."""
    crates = [crate for crate in crates if arch in crate.archs]
    place = {(crate.name, crate.version): at for at, crate in enumerate(crates)}
    packages = []
    for crate in crates:
        source = "crates.io" if (crate.source or "").startswith(REGISTRY) else "local"
        package = {"name": crate.name, "version": crate.version, "source": source}
        if children := sorted(place[key] for key in crate.children[arch]):
            package["dependencies"] = children
        if crate.name == PROGRAM:
            package["root"] = True
        packages.append(package)
    return json.dumps({"packages": packages}, separators=(",", ":")).encode()
