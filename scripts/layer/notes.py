"""Prints a version's section of .github/CHANGELOG.md, as the notes of its release: `python3 scripts/layer/notes.py 1.2.3`."""
import re
import sys

from tools import REPOSITORY


def notes(changelog, version):
    """What stands between the version's heading and the next one; fails where there is nothing."""
    found = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL)
    if not found or not found[1].strip():
        raise SystemExit(f".github/CHANGELOG.md says nothing of version {version}")
    return found[1].strip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(notes((REPOSITORY / ".github/CHANGELOG.md").read_text(), sys.argv[1]))
