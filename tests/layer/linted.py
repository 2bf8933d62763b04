"""Scripts and sources as shellcheck, bandit and detect-secrets see them; accepted.py says what may stay, and why."""
import json
import os
import pathlib
import re
import subprocess

import accepted
from harness import expect, run
from tools import LAYERS, REPOSITORY, venv

REQUIREMENTS = pathlib.Path(__file__).with_name("requirements") / "lint.txt"
# What each of them must see.
BAD_SHELL = '#!/usr/bin/env bash\nrm -rf $1/*\n'
BAD_PYTHON = "import subprocess\nsubprocess.run(input(), shell=True)\n"
BAD_SECRET = 'key = "AKIA' + 'Z7QK3TWVY2XNB5RM"\n'


def shellcheck_finds_nothing():
    files = [file for file in tracked() if re.match(r"#!.*\b(bash|sh)$", first_line(file))]
    unknown, used = sort_out(shellcheck(files), accepted.SHELL, lambda rule, found: (rule[0], rule[1]) == (found["rule"], found["file"]))
    expect(not unknown, f"{unknown}")
    seen = shellcheck([planted("bad.sh", BAD_SHELL)])
    expect(any(found["rule"] == "SC2115" for found in seen), f"shellcheck does not see `rm -rf $1/*`: {seen}")
    return f"{len(files)} scripts, {used} kinds accepted"


def shellcheck(files):
    said = lint("shellcheck", "--format=json", "--external-sources", *files)
    return [{"rule": f"SC{each['code']}", "file": each["file"], "line": each["line"], "why": each["message"]} for each in json.loads(said)]


def bandit_finds_nothing():
    files = [file for file in tracked() if file.endswith(".py") or "python3" in first_line(file)]
    unknown, used = sort_out(bandit(files), accepted.PYTHON, lambda rule, found: rule[0] == found["rule"] and found["file"].startswith(rule[1]))
    expect(not unknown, f"{unknown}")
    seen = bandit([planted("bad.py", BAD_PYTHON)])
    expect(any(found["rule"] == "B602" for found in seen), f"bandit does not see a shell: {seen}")
    return f"{len(files)} scripts, {used} kinds accepted"


def bandit(files):
    found = json.loads(lint("bandit", "--quiet", "--format", "json", *files))
    expect(not found["errors"], f"{found['errors']}")
    place = lambda each: each["filename"].removeprefix("./")
    return [{"rule": each["test_id"], "file": place(each), "line": each["line_number"], "why": each["issue_text"]} for each in found["results"]]


def detect_secrets_finds_nothing():
    def fits(rule, found):
        return rule[0] == found["rule"] and re.search(rule[1], found["file"]) and re.search(rule[2], found["why"])

    # Checksums of packages.
    found = secrets("--exclude-lines=--hash=sha256:[0-9a-f]{64}")
    unknown, used = sort_out(found, accepted.SECRETS, fits)
    expect(not unknown, f"{[{**each, 'why': 'see there'} for each in unknown]}")
    seen = secrets(str(planted("bad.txt", BAD_SECRET)))
    expect(any(each["rule"] == "AWS Access Key" for each in seen), f"detect-secrets does not see a key: {seen}")
    return f"{len(found)} places, {used} kinds accepted"


def secrets(*options):
    found = []
    for file, places in json.loads(lint("detect-secrets", "scan", *options))["results"].items():
        lines = (REPOSITORY / file).read_text().split("\n")
        found += [{"rule": each["type"], "file": file, "line": each["line_number"], "why": lines[each["line_number"] - 1]} for each in places]
    return found


def sort_out(found, rules, fits):
    """What no rule accepts, and how many rules there are; each must accept something."""
    for rule in rules:
        expect(any(fits(rule, each) for each in found), f"accepted.py accepts what is not there any more: {rule}")
    return [each for each in found if not any(fits(rule, each) for rule in rules)], len(rules)


def lint(tool, *arguments):
    """What a linter prints; that it found something is no failure."""
    tools = venv("lint", REQUIREMENTS)
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([tools / tool, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300)
    expect(done.returncode in (0, 1) and done.stdout, f"{tool} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def tracked():
    return [file for file in run("git", "ls-files").splitlines() if (REPOSITORY / file).is_file()]


def first_line(file):
    with open(REPOSITORY / file, "rb") as opened:
        return opened.readline(200).decode(errors="replace").rstrip()


def planted(name, text):
    file = LAYERS / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return str(file.relative_to(REPOSITORY))


CHECKS = [shellcheck_finds_nothing, bandit_finds_nothing, detect_secrets_finds_nothing]
