# SPDX-License-Identifier: Apache-2.0
"""What the programs' plot.py share: reading the CSV files of runs, and the command line. Needs matplotlib."""
import argparse
import csv
import pathlib
import sys

Run = dict[str, list[float]]


def read(path: pathlib.Path, program: str, unit: str, needed: set[str]) -> Run:
    """Returns the columns of a file that `program` wrote; ends if there is none, or no row, or a column that is `needed` is missing."""
    if not path.exists():
        sys.exit(f"{path}: no such file")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        sys.exit(f"{path}: holds no {unit}s yet")
    missing = needed - rows[0].keys()
    if missing:
        sys.exit(f"{path}: not a file that {program} wrote: no column {', '.join(sorted(missing))}")
    return {name: [float(row[name]) for row in rows] for name in rows[0]}


def main(doc: str, program: str, unit: str, needed: set[str], draw) -> None:
    """Reads the files of the command line and saves what `draw({name: run})` returns, a figure of matplotlib's."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", nargs="+", type=pathlib.Path, help=f"files that {program} wrote")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("curves.png"), help="the picture [curves.png]")
    arguments = parser.parse_args()
    runs: dict[str, Run] = {}
    for path in arguments.csv:
        name = path.stem if path.stem not in runs else str(path)
        runs[name] = read(path, program, unit, needed)
    import matplotlib

    matplotlib.use("Agg")
    figure = draw(runs)
    figure.tight_layout()
    figure.savefig(arguments.out, dpi=120)
    print(f"wrote {arguments.out}")
