"""What scripts/build-layer leaves behind."""
import functools
import hashlib
import json
import os
import pathlib
import shutil
import sys
import zipfile
import zlib

import elf
import pack
from harness import Failure, expect, run
from tools import LAYERS, PROGRAM, REPOSITORY, TARGETS, output

INSIDE = f"extensions/{PROGRAM}"
PROGRAM_BYTES, ZIP_BYTES, TREE_BYTES = 1_800_000, 950_000, 8_192
# The second build: elsewhere, deeper, and with a space in the way.
ELSEWHERE = REPOSITORY / "target/elsewhere/an other/folder"


# What the bytes of a layer depend on.
INPUTS = ["Cargo.toml", "Cargo.lock", "src", "scripts/build-layer", "scripts/layer"]
# The second build: always of this one.
TWICE = "x86_64"
AGAIN = "again"
# For a build that gets only what tests leave of a busy machine.
PATIENCE = 3600
PARTS = [*TARGETS, AGAIN]


def build(parts):
    """Builds these layers, or one of them again elsewhere. Each leaves a stamp, so that the checks need not build it once more."""
    for part in parts:
        if part == AGAIN:
            in_another_folder()
        else:
            run("scripts/build-layer", part, timeout=PATIENCE)
        stamp(part).write_text(state(part))


def is_built(part):
    """Whether that part lies there as it was built from what the sources are now."""
    return stamp(part).exists() and all(path.exists() for path in outputs(part)) and stamp(part).read_text() == state(part)


def stamp(part):
    return LAYERS / f"{part}.stamp"


def state(part):
    """A hash over what goes into a build and what came out of it."""
    files = [path for name in INPUTS for path in [REPOSITORY / name, *sorted((REPOSITORY / name).rglob("*"))] if path.is_file()]
    digest = hashlib.sha256(output("rustc", "-vV").encode())
    for path in [*files, *outputs(part)]:
        if path.suffix != ".pyc":
            digest.update(f"{path}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def outputs(part):
    """Zip, program and bill of materials."""
    arch, folder = (TWICE, ELSEWHERE / "target/layer") if part == AGAIN else (part, LAYERS)
    return [folder / name for name in (f"{PROGRAM}-{arch}.zip", f"{arch}/{INSIDE}", f"{PROGRAM}-{arch}.cdx.json")]


@functools.cache
def built():
    """Both layers, once for all checks."""
    build([part for part in TARGETS if not is_built(part)])


def two_builds_give_one_hash():
    built()
    if not is_built(AGAIN):
        build([AGAIN])
    for ours, theirs in zip(outputs(TWICE), outputs(AGAIN)):
        expect(ours.read_bytes() == theirs.read_bytes(), f"{ours} and {theirs} differ")
    return f"{TWICE}: program, zip and bill of materials, from another folder, another CARGO_HOME, and foreign RUSTFLAGS"


def in_another_folder():
    """Builds one layer in a copy of the sources, with cargo's home reached by another name."""
    shutil.rmtree(ELSEWHERE, ignore_errors=True)
    ELSEWHERE.mkdir(parents=True)
    for name in ("Cargo.toml", "Cargo.lock", "src", "scripts", "tests"):
        source = REPOSITORY / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, ELSEWHERE / name, **({"ignore": shutil.ignore_patterns("node_modules")} if source.is_dir() else {}))
    (ELSEWHERE / "target").mkdir()
    # Only the tools are shared: their installation is no part of the build.
    (ELSEWHERE / "target/tools").symlink_to(REPOSITORY / "target/tools")
    home = ELSEWHERE.parent / "home"
    if home.is_symlink():
        home.unlink()
    given = pathlib.Path(os.environ.get("CARGO_HOME") or pathlib.Path.home() / ".cargo")
    home.symlink_to(given)
    environment = {**os.environ, "CARGO_HOME": str(home), "RUSTFLAGS": "-Copt-level=0", "SOURCE_DATE_EPOCH": "1"}
    run(sys.executable, "scripts/build-layer", TWICE, cwd=ELSEWHERE, env=environment, timeout=PATIENCE)
    # What the checks compare stays; the rest takes up a gigabyte.
    shutil.rmtree(ELSEWHERE / "target/layer/build")


def layers_hold_one_small_program():
    built()
    said = []
    for arch in TARGETS:
        archive, file = LAYERS / f"{PROGRAM}-{arch}.zip", LAYERS / arch / INSIDE
        with zipfile.ZipFile(archive) as opened:
            (entry,) = opened.infolist()
            expect(entry.filename == INSIDE, f"{archive.name} holds {entry.filename}")
            expect(entry.external_attr >> 16 == 0o100755, f"{entry.filename} has mode {entry.external_attr >> 16:o} in {archive.name}")
            expect(opened.read(entry) == file.read_bytes(), f"{archive.name} and the folder {arch} differ")
        found = [path for path in (LAYERS / arch).rglob("*") if path.is_file()]
        expect(found == [file] and file.stat().st_mode & 0o7777 == 0o755, f"{LAYERS / arch} holds more, or not as a program")
        program = file.read_bytes()
        expect(not elf.complaints(program, arch), elf.complaints(program, arch))
        sizes = len(program), archive.stat().st_size
        expect(sizes[0] <= PROGRAM_BYTES and sizes[1] <= ZIP_BYTES, f"{arch}: {sizes} bytes are over the budget")
        said.append(f"{arch} {sizes[0]:,} bytes, zip {sizes[1]:,}")
        seen_by_others(file)
    return "; ".join(said)


def seen_by_others(file):
    """The same, asked of third-party programs, where they are installed."""
    if shutil.which("readelf"):
        said = run("readelf", "--wide", "--program-headers", "--dynamic", "--sections", str(file))
        expect("INTERP" not in said and "NEEDED" not in said and ".symtab" not in said, said)
        expect("Warning" not in said and "Error" not in said, said)
    if shutil.which("file"):
        said = run("file", "--brief", str(file))
        expect("static" in said and "stripped" in said and "not stripped" not in said, said)


def the_program_does_not_say_where_it_was_built():
    built()
    home = pathlib.Path.home()
    places = [REPOSITORY, os.environ.get("CARGO_HOME") or home / ".cargo", os.environ.get("RUSTUP_HOME") or home / ".rustup"]
    for arch in TARGETS:
        program = (LAYERS / arch / INSIDE).read_bytes()
        for place in places:
            expect(f"{place}/".encode() not in program, f"the program for {arch} holds {place}")
    return f"none of {len(places)} folders"


def what_is_no_static_program_is_refused():
    built()
    program = (LAYERS / "x86_64" / INSIDE).read_bytes()
    machine = elf.with_section(program, ".debug_info", b"x")
    host = pathlib.Path(shutil.which("cargo")).resolve().read_bytes()
    cases = {
        "a program for another machine": (program, "arm64", "machine"),
        "debug information": (machine, "x86_64", "debug"),
        "the host's own program": (host, "x86_64", "not static"),
        "a script": (b"#!/bin/sh\n", "x86_64", "no 64-bit"),
        "a program cut short": (program[:4096], "x86_64", ""),
    }
    for name, (data, arch, why) in cases.items():
        found = elf.complaints(data, arch)
        expect(found and why in " ".join(found), f"{name}: {found}")
    return f"{len(cases)} kinds of others"


def the_program_carries_its_crates():
    built()
    said = []
    for arch in TARGETS:
        section = elf.Elf((LAYERS / arch / INSIDE).read_bytes()).section(".dep-v0")
        packages = json.loads(zlib.decompress(section))["packages"]
        bill = json.loads((LAYERS / f"{PROGRAM}-{arch}.cdx.json").read_text())
        listed = {(component["name"], component["version"]) for component in bill["components"] if "hashes" in component}
        carried = {(package["name"], package["version"]) for package in packages if not package.get("root")}
        expect(carried == listed, f"{arch}: {carried ^ listed} are in one of the two")
        expect(len(section) <= TREE_BYTES, f"{len(section)} bytes")
        expect(all(at != child for at, package in enumerate(packages) for child in package.get("dependencies", [])), "a crate needs itself")
        said.append(f"{arch} {len(packages)} crates in {len(section)} bytes")
    return "; ".join(said)


def the_zip_is_the_same_whenever_it_is_made():
    data = os.urandom(1000) + bytes(9000)
    once, again = pack.zipped("a/b", data), pack.zipped("a/b", data)
    if once != again:
        raise Failure("two zips of the same differ")
    return "no clock, no owner"


CHECKS = [
    two_builds_give_one_hash,
    layers_hold_one_small_program,
    the_program_does_not_say_where_it_was_built,
    what_is_no_static_program_is_refused,
    the_program_carries_its_crates,
    the_zip_is_the_same_whenever_it_is_made,
]
