#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that a release is whole: that its version, changelog, tag and docs agree. Changes nothing.

usage: release_check.py [ROOT]
  ROOT  default: the repository of this script; HEAD is the commit to be released

The version is that of include/lawn/version.h. It must be under its own heading with a date in CHANGELOG.md, with nothing under
Unreleased; the README must name its major and minor number, CITATION.cff and vcpkg's port the version; each link of README.md,
CONTRIBUTING.md, docs/, examples/README.md and packaging/README.md must lead to a file; the tag v<version>, if it is there, must be
at HEAD, and no higher tag may be.
"""

import json
import pathlib
import re
import subprocess
import sys


def version_of(root):
    text = (root / "include/lawn/version.h").read_text()
    return re.search(r'#define LAWN_VERSION "([\d.]+)"', text)[1]


def changelog_faults(text, version):
    sections = dict(re.findall(r"^## \[([^\]]+)\](.*?)(?=^## \[|\Z)", text, re.MULTILINE | re.DOTALL))
    if re.search(r"^- ", sections.get("Unreleased", ""), re.MULTILINE):
        yield "CHANGELOG.md has entries under Unreleased; move them under the version"
    if version not in sections:
        yield f"CHANGELOG.md: expected a section [{version}], found none"
    elif not re.match(r" - \d{4}-\d\d-\d\d\n", sections[version]):
        yield f"CHANGELOG.md: expected a date behind [{version}], as in `## [{version}] - 2026-01-31`"


def readme_faults(text, version):
    minor = version.rpartition(".")[0]
    if not re.search(rf"version {re.escape(minor)}\b", text):
        yield f"README.md: expected `version {minor}`, found none"


def citation_faults(text, version):
    if f"version: {version}" not in text.splitlines():
        yield f"CITATION.cff: expected `version: {version}`, found none"


def port_faults(text, version):
    if json.loads(text)["version"] != version:
        yield f"packaging/vcpkg/ports/lawn/vcpkg.json: expected the version {version}, found {json.loads(text)['version']}"


def link_faults(root):
    named = [root / page for page in ("README.md", "CONTRIBUTING.md", "examples/README.md", "packaging/README.md")]
    for page in [*named, *sorted((root / "docs").rglob("*.md"))]:
        if not page.exists():
            yield f"{page.relative_to(root)} is missing"
            continue
        text = re.sub(r"<!--.*?-->|^```.*?^```|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#]+)", text):
            if not re.match(r"https?:", target) and not (page.parent / target).exists():
                yield f"{page.relative_to(root)} links to {target}, which is missing"


def git(root, *arguments):
    return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True).stdout.split()


def tag_faults(root, version):
    numbers = [int(part) for part in version.split(".")]
    for tag in git(root, "tag", "--list", "v*"):
        parts = re.fullmatch(r"v(\d+)\.(\d+)\.(\d+)", tag)
        if parts and [int(part) for part in parts.groups()] > numbers:
            yield f"the tag {tag} is higher than the version {version}"
        if tag == f"v{version}" and git(root, "rev-list", "-n1", tag) != git(root, "rev-parse", "HEAD"):
            yield f"the tag {tag} is not at HEAD; raise the version"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent.parent)
    version = version_of(root)
    faults = [*changelog_faults((root / "CHANGELOG.md").read_text(), version), *readme_faults((root / "README.md").read_text(), version),
              *citation_faults((root / "CITATION.cff").read_text(), version),
              *port_faults((root / "packaging/vcpkg/ports/lawn/vcpkg.json").read_text(), version), *link_faults(root),
              *tag_faults(root, version)]
    print("\n".join(faults) if faults else f"{version} is whole")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
