"""scripts/image, looked at by tools that others wrote: skopeo and umoci."""
import hashlib
import json
import os
import platform
import shutil
import zipfile

import tools
from emulation import Failure

TOOLS = ("skopeo", "umoci")
PROGRAM = "kinesis-telemetry-extension"
INSIDE = f"extensions/{PROGRAM}"
PLATFORMS = {"x86_64": "amd64", "arm64": "arm64"}
MACHINE = {"aarch64": "arm64", "amd64": "x86_64"}.get(platform.machine(), platform.machine())


def check(setup):
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing and os.environ.get("CI") == "true":
        raise Failure(f"no {' and no '.join(missing)}: both are packages of Debian")
    if missing:
        return f"*** NOT CHECKED: no {' and no '.join(missing)}, which are packages of Debian ***"
    work = setup.work / "image"
    work.mkdir()
    for architecture in PLATFORMS:
        shutil.copy(tools.LAYERS / f"{PROGRAM}-{architecture}.zip", work)

    def call(name, *command):
        return setup.call(f"image-{name}", command, 60)

    archive = work / f"{PROGRAM}-image.tar"
    made = []
    for _ in range(2):
        said = call("make", tools.REPOSITORY / "scripts/image", "--zips", work)
        made.append(hashlib.sha256(archive.read_bytes()).hexdigest())
    expect("the second image", made[1], made[0])
    version, digest = said.splitlines()[-1].split()[1:]

    place = f"oci-archive:{archive}"
    seen = json.loads(call("inspect", "skopeo", "inspect", place))
    expect("the digest", seen["Digest"], digest)
    expect("the version", seen["Labels"]["org.opencontainers.image.version"], version)
    # Copying reads every blob and compares it with its digest.
    call("copy", "skopeo", "--insecure-policy", "copy", "--all", place, f"oci:{work / 'all'}:{version}")
    index = json.loads(call("raw", "skopeo", "inspect", "--raw", place))
    expect("the platforms", [each["platform"]["architecture"] for each in index["manifests"]], list(PLATFORMS.values()))
    for architecture, name in PLATFORMS.items():
        unpacked(setup, call, work, place, architecture, name)
    broken(call, setup, archive, work)
    return f"{', '.join(PLATFORMS.values())}, {archive.stat().st_size:,} bytes, {digest[:19]}"


def unpacked(setup, call, work, place, architecture, name):
    """What a builder finds in the image for this architecture is what the layer's zip holds."""
    one = work / f"one-{name}"
    call("one", "skopeo", "--insecure-policy", "--override-arch", name, "copy", place, f"oci:{one}:it")
    call("unpack", "umoci", "unpack", "--image", f"{one}:it", work / name)
    root = work / name / "rootfs"
    files = {str(file.relative_to(root)): oct(file.stat().st_mode) for file in root.rglob("*") if not file.is_dir()}
    expect(f"files for {name}", files, {f"opt/{INSIDE}": oct(0o100755)})
    program = root / "opt" / INSIDE
    with zipfile.ZipFile(tools.LAYERS / f"{PROGRAM}-{architecture}.zip") as layer:
        expect(f"the program for {name} is the layer's", program.read_bytes() == layer.read(INSIDE), True)
    if architecture == MACHINE:
        said = call("run", program, "--version")
        expect("what the program says", said.startswith(PROGRAM), True)


def broken(call, setup, archive, work):
    """A bit that is not as the digest says must be found, or copying proves nothing."""
    data = bytearray(archive.read_bytes())
    data[data.index(b"\x7fELF") + 64] ^= 1
    bad = work / "bad.tar"
    bad.write_bytes(data)
    setup.call("image-bad", ["skopeo", "--insecure-policy", "copy", "--all", f"oci-archive:{bad}", f"oci:{work / 'bad'}:it"], 60, may_fail=True)
    if not setup.code:
        raise Failure("skopeo takes an image with a wrong byte in it")


def expect(what, found, wanted):
    if found != wanted:
        raise Failure(f"{what} is {found!r}, not {wanted!r}")
