#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/release_check.py on made-up repositories.

usage: release_check_test.py [ReleaseCheck.test_...]
"""

import pathlib
import subprocess
import sys
import tempfile
import unittest

SCRIPT = pathlib.Path(__file__).resolve().parent.parent / "scripts/release_check.py"
WHOLE = {
    "include/lawn/version.h": '#define LAWN_VERSION "1.2.0"\n',
    "CHANGELOG.md": "# Changelog\n\n## [Unreleased]\n\n## [1.2.0] - 2026-01-31\n\n- A thing.\n\n## [1.1.0] - 2025-12-01\n\n- Another.\n",
    "README.md": "This is version 1.2. See [the guide](docs/guide.md#top) and [the paper](https://example.org/a).\n",
    "CITATION.cff": "title: a\nversion: 1.2.0\n",
    "CONTRIBUTING.md": "```cpp\n[](const auto& x) {}\n```\n",
    "packaging/vcpkg/ports/lawn/vcpkg.json": '{"name": "lawn", "version": "1.2.0"}',
    "packaging/README.md": "# Packages\n",
    "examples/README.md": "# Examples\n",
    "docs/guide.md": "[Back](../README.md), `[](auto& x)`\n<!--\n[](int y) -->",
}


class ReleaseCheck(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = pathlib.Path(temporary.name)
        self.git("init", "--quiet")
        for name, text in WHOLE.items():
            self.write(name, text)
        self.commit()

    def write(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def git(self, *arguments):
        subprocess.run(["git", "-C", self.root, "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false",
                        *arguments], check=True, capture_output=True)

    def commit(self):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a")

    def expect(self, *faults):
        run = subprocess.run([sys.executable, "-B", SCRIPT, self.root], capture_output=True, text=True)
        self.assertEqual(run.stdout.splitlines(), list(faults) or ["1.2.0 is whole"], run.stderr)
        self.assertEqual(run.returncode, 1 if faults else 0)

    def test_finds_nothing_in_a_whole_release_tagged_or_not(self):
        self.expect()
        self.git("tag", "v1.1.0")
        self.git("tag", "v1.2.0")
        self.expect()

    def test_finds_entries_without_a_release_and_a_release_without_a_section_or_date(self):
        self.write("CHANGELOG.md", "## [Unreleased]\n\n- New.\n\n## [1.1.0] - 2025-12-01\n\n- Old.\n")
        self.expect("CHANGELOG.md has entries under Unreleased; move them under the version",
                    "CHANGELOG.md: expected a section [1.2.0], found none")
        self.write("CHANGELOG.md", "## [Unreleased]\n\n## [1.2.0]\n\n- New.\n")
        self.expect("CHANGELOG.md: expected a date behind [1.2.0], as in `## [1.2.0] - 2026-01-31`")

    def test_finds_old_versions_and_links_that_lead_nowhere(self):
        self.write("README.md", "This is version 1.1.\n")
        self.write("CITATION.cff", "version: 1.2.0.1\n")
        self.write("docs/guide.md", "[gone](gone.md)\n")
        self.write("packaging/README.md", "[gone](../gone.md)\n")
        self.write("packaging/vcpkg/ports/lawn/vcpkg.json", '{"name": "lawn", "version": "1.1.0"}')
        self.expect("README.md: expected `version 1.2`, found none", "CITATION.cff: expected `version: 1.2.0`, found none",
                    "packaging/vcpkg/ports/lawn/vcpkg.json: expected the version 1.2.0, found 1.1.0",
                    "packaging/README.md links to ../gone.md, which is missing", "docs/guide.md links to gone.md, which is missing")

    def test_finds_tags_elsewhere_and_higher_ones(self):
        self.git("tag", "v1.2.0")
        self.git("tag", "v1.10.0")
        self.commit()
        self.expect("the tag v1.10.0 is higher than the version 1.2.0", "the tag v1.2.0 is not at HEAD; raise the version")


if __name__ == "__main__":
    unittest.main()
