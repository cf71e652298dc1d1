#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the programs' plot.py say of files that they cannot draw. Needs no matplotlib.

    plotting_test.py PATH_OF_PROGRAM          one that has a plot.py: cifar10 or continual
"""
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from programs import NAME, check  # noqa: E402

PLOT = pathlib.Path(__file__).resolve().parents[2] / "examples" / "apps" / NAME / "plot.py"

with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, "adam.csv")
    for content, expected in ((None, "no such file"), ("epoch\n", "holds no "), ("a\n1\n", f"not a file that {NAME} wrote: no column ")):
        if content is not None:
            file.write_text(content)
        ended = subprocess.run([sys.executable, "-B", str(PLOT), str(file)], capture_output=True, text=True, check=False)
        check(ended.returncode == 1 and ended.stderr.startswith(f"{file}: {expected}"), f"it ended with {ended.returncode}:\n{ended.stderr}")
