#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fuzzes one reader of data files, from small files that it takes and files that it nearly takes.

    fuzz.py PROGRAM READER [SECONDS]          without SECONDS a few thousand inputs, the same each time
    fuzz.py --seeds READER FOLDER             writes these files, to begin a longer run with

What a longer run finds, it leaves in the working folder as crash-...; PROGRAM --reader=READER crash-... shows it again.
"""
import gzip
import pathlib
import struct
import subprocess
import sys
import tempfile

RUNS = {"idx": 2000, "cifar10": 2000, "ratings": 2000, "text": 1000, "gzip": 2000}
LONGEST = 8192  # bytes of an input: two records of CIFAR-10 have 6,146


def idx(*shape: int, held: int) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(range(held))


def packed(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


IMAGES = idx(2, 3, 4, held=24)
RECORDS = (bytes([3]) + bytes(range(256)) * 12) + (bytes([9]) + bytes(3072))
RATINGS = b"196\t242\t3\t881250949\n5\t9\t1\t7\n196\t10\t4.5\t8\n"
SEEDS = {
    "idx": [IMAGES, idx(5, held=5), idx(2, 0, 4, held=0), idx(0, 2**32 - 1, 2**32 - 1, held=0), packed(IMAGES), IMAGES[:9]],
    "cifar10": [RECORDS, RECORDS + b"x", RECORDS[:-1], packed(RECORDS)],
    "ratings": [RATINGS, b"\xef\xbb\xbf" + RATINGS.replace(b"\n", b"\r\n") + b"\n\n", RATINGS * 2, b"\n", packed(RATINGS)],
    "text": [b"In the beginning\r\n", bytes(range(256)), b"", packed(b"In the beginning")],
    "gzip": [
        *[packed(IMAGES), packed(b"a") + packed(b"b"), packed(b"a") + b"garbage", packed(RATINGS)[:-3], packed(bytes(1 << 17))],
        IMAGES,
    ],
}


def write_seeds(reader: str, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(SEEDS[reader]):
        (folder / f"seed-{number}").write_bytes(content)


def fuzz(program: str, reader: str, seconds: str) -> int:
    limit = [f"-max_total_time={seconds}"] if seconds else [f"-runs={RUNS[reader]}", "-seed=1"]
    with tempfile.TemporaryDirectory() as folder:
        write_seeds(reader, pathlib.Path(folder))
        # A reader that takes more memory than a file can ask for ends the program, too.
        limit += [f"-max_len={LONGEST}", "-malloc_limit_mb=64", "-rss_limit_mb=2048", "-print_final_stats=1"]
        return subprocess.run([program, f"--reader={reader}", *limit, folder], check=False).returncode


if sys.argv[1] == "--seeds":
    write_seeds(sys.argv[2], pathlib.Path(sys.argv[3]))
else:
    sys.exit(fuzz(sys.argv[1], sys.argv[2], "".join(sys.argv[3:])))
