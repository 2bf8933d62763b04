"""Unpacks the layers of a release, for scripts/deploy --layers: `python3 release.py SOURCE FOLDER`.

SOURCE is a folder with the two zips, the URL of such a folder, or a tag such as v0.1.0, whose release is looked for where this
clone's `origin` is on GitHub. The zips are compared with SHA256SUMS; only a folder may lack that. Needs no more than Python.
"""
import hashlib
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile

PROGRAM = "kinesis-telemetry-extension"
INSIDE = f"extensions/{PROGRAM}"
ARCHITECTURES = ("x86_64", "arm64")
SUMS = "SHA256SUMS"
# A layer has less than 1 MB: what is much larger is something else.
MOST_BYTES = 10_000_000
TIMEOUT_SECONDS = 60


class Unusable(Exception):
    """Why there are no layers."""


def main(source, folder):
    names = [f"{PROGRAM}-{architecture}.zip" for architecture in ARCHITECTURES]
    local = pathlib.Path(source).is_dir()
    base = source if local else url_of(source)
    read = (lambda name: (pathlib.Path(source) / name).read_bytes()) if local else (lambda name: download(f"{base}/{name}"))
    if local:
        if missing := [name for name in names if not (pathlib.Path(source) / name).is_file()]:
            raise Unusable(f"{source} has no {' and no '.join(missing)}")
        sums = read(SUMS).decode() if (pathlib.Path(source) / SUMS).is_file() else None
    else:
        print(f"   from {base}", flush=True)
        sums = read(SUMS).decode()
    for architecture, name in zip(ARCHITECTURES, names):
        data = read(name)
        if sums is not None and f"{hashlib.sha256(data).hexdigest()}  {name}" not in sums.splitlines():
            raise Unusable(f"{base}/{name} is not the file of which {SUMS} has the checksum")
        unpack(data, name, pathlib.Path(folder) / architecture)


def url_of(source):
    """Where the release of a tag lies, or the URL itself."""
    if re.fullmatch(r"https://\S+|http://(localhost|127\.[0-9.]+)(:\d+)?(/\S*)?", source):
        return source.rstrip("/")
    if not re.fullmatch(r"v\d+\.\d+\.\d+[\w.-]*", source):
        raise Unusable(f"{source} is no folder, no https URL, and no tag such as v0.1.0")
    origin = subprocess.run(["git", "remote", "get-url", "origin"], capture_output=True, text=True).stdout.strip()
    found = re.fullmatch(r"(?:https://github\.com/|(?:ssh://)?git@github\.com[:/])([\w.-]+/[\w.-]+?)(?:\.git)?/?", origin)
    if not found:
        raise Unusable(f"the release {source} can't be found: `git remote get-url origin` names no repository on GitHub; give its URL, or a folder with its zips")
    return f"https://github.com/{found[1]}/releases/download/{source}"


def download(url):
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            data = answer.read(MOST_BYTES + 1)
    except (urllib.error.URLError, OSError) as error:
        raise Unusable(f"{url}: {error}; download the release's files yourself, and give the folder with them") from None
    if len(data) > MOST_BYTES:
        raise Unusable(f"{url} has more than {MOST_BYTES:,} bytes")
    return data


def unpack(data, name, folder):
    """The program alone, in its place, with the mode that Lambda needs."""
    file = folder.parent / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    try:
        with zipfile.ZipFile(file) as archive:
            program = archive.read(INSIDE)
    except (zipfile.BadZipFile, KeyError) as error:
        raise Unusable(f"{name} is no layer of the extension: {error}") from None
    finally:
        file.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    place = folder / INSIDE
    place.parent.mkdir(parents=True)
    place.write_bytes(program)
    place.chmod(0o755)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Unusable as why:
        sys.exit(f"scripts/deploy: {why}")
