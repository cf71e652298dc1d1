#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Checks the layout of include/lawn: what includes what, which namespace a header is in, and that docs/architecture.md has a row
for each folder. Reads the text of the files, so it needs no compiler.

  python3 tests/layout_test.py
"""

import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LAWN = ROOT / "include/lawn"

# The floors, from the ground up: a file includes files of its own floor's folder, and of floors below. `X.h` and the folder `X/`
# with its parts are one.
FLOORS = [
    ["finite_math.h", "module_view.h", "torch_version.h", "write_atomically.h"],
    ["archive", "autocast.h", "version.h", "text_columns.h", "unique_parameters.h", "sphere"],
    ["cuda_kernels.h", "parameters", "subnetwork"],
    ["capture", "distributed", "schedule"],
    ["clip_grad_norm.h", "folded", "grad_scaler"],
    ["optim"],
    ["decorator", "report.h", "options.h"],
    ["checkpoint", "optimizer", "reset_state.h"],
    ["companions"],
    ["kernels.cu", "lawn.h"],
]
# Among the companions, likewise.
COMPANIONS = [
    ["block_grid.h", "flat.h", "keep_random_state.h", "module_tensors.h"],
    ["afan", "cuda", "eman"],
    ["pruning"],
    ["mimicnorm", "unification"],
]


def files():
    return sorted(path for path in LAWN.rglob("*") if path.suffix in (".h", ".cuh", ".cu"))


def includes(path):
    return re.findall(r'^\s*#\s*include\s*[<"]lawn/([^>"]+)[>"]', path.read_text(), re.MULTILINE)


def place(relative, folder=""):
    """The file, or the folder that it is part of, among those of `folder`."""
    name = relative[len(folder):].split("/")[0]
    stem = name.removesuffix(".h")
    return stem if (LAWN / folder / stem).is_dir() else name


def upward_arrows(edges, floors):
    """Of `edges`, which are (from, to, text), those that do not lead to a lower floor, or that stay in one place."""
    floor_of = {name: floor for floor, names in enumerate(floors) for name in names}
    return [text for a, b, text in edges if a != b and floor_of[a] <= floor_of[b]]


class Layout(unittest.TestCase):

    def test_no_arrow_leads_upward(self):
        edges = []
        for path in files():
            mine = str(path.relative_to(LAWN))
            edges += [(place(mine), place(other), f"{mine} includes {other}") for other in includes(path)]
        self.assertEqual({a for a, _, _ in edges} - {name for names in FLOORS for name in names}, set(),
                         "a new folder needs a floor in FLOORS")
        self.assertEqual(upward_arrows(edges, FLOORS), [])

    def test_no_arrow_leads_upward_among_the_companions(self):
        folder = "companions/"
        edges = []
        for path in files():
            mine = str(path.relative_to(LAWN))
            if mine.startswith(folder):
                edges += [(place(mine, folder), place(other, folder), f"{mine} includes {other}")
                          for other in includes(path) if other.startswith(folder)]
        self.assertEqual(upward_arrows(edges, COMPANIONS), [])

    def test_an_upward_arrow_is_found(self):
        self.assertEqual(upward_arrows([("a", "b", "a>b"), ("b", "a", "b>a"), ("a", "a", "a>a")], [["a"], ["b"]]), ["a>b"])
        self.assertEqual(upward_arrows([("a", "b", "a>b")], [["a", "b"]]), ["a>b"])

    def test_a_host_header_includes_no_device_code(self):
        for path in files():
            if path.suffix == ".h":
                self.assertEqual([other for other in includes(path) if not other.endswith(".h")], [], path)

    def test_private_names_are_in_the_namespace_of_their_folder(self):
        for path in files():
            folder = path.relative_to(LAWN).parent
            if folder.parts == () or folder.parts[0] == "sphere":  # lawn::sphere is for those who write spheres of their own
                continue
            named = [part for part in folder.parts if part not in ("cpu", "fused")]
            for namespace in re.findall(r"^namespace (?:lawn::)?detail::([\w:]+) \{", path.read_text(), re.MULTILINE):
                self.assertIn(namespace.split("::")[0], named, f"{path}: namespace {namespace}")

    def test_every_folder_is_in_the_page_on_the_architecture(self):
        rows = set(re.findall(r"^\| `([\w/]+)/` \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE))
        self.assertEqual(rows, {str(path.parent.relative_to(LAWN)) for path in files()} - {"."})

    def test_headers_are_short(self):
        long = {str(path.relative_to(LAWN)): count for path in files()
                if (count := len(path.read_text().splitlines())) > 350}
        self.assertEqual(long, {})


if __name__ == "__main__":
    sys.exit(unittest.main())
