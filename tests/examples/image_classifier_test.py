#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the example image_classifier for an epoch and checks that it prints figures, that batch norms have seen the batches of training
and nothing else, and what it says of a wrong command line and of wrong files.

    image_classifier_test.py PATH_OF_PROGRAM
"""
import collections
import pathlib
import struct
import sys
import tempfile
import zipfile

sys.dont_write_bytecode = True
from programs import check, run  # noqa: E402

RECORD = 1 + 3 * 32 * 32
BATCH_NORMS = 19  # of a ResNet-20
STEPS = 2000 // 64 + 1


def check_refused(arguments: list[str], expected: str) -> None:
    code, output = run(arguments)
    check(code == 1, f"{arguments} ended with {code}:\n{output}")
    check(output.startswith(f"{expected}\nusage: image_classifier "), f"{arguments}: instead of '{expected}':\n{output}")


def trains(folder: pathlib.Path) -> None:
    checkpoint = folder / "run.pt"
    code, output = run(["", "1", str(checkpoint)])
    check(code == 0 and "\nepoch 1  constrained  test accuracy 0." in output, f"it ended with {code}:\n{output}")
    with zipfile.ZipFile(checkpoint) as archive:
        contents = [archive.read(name) for name in archive.namelist() if "/data/" in name or "/constants/" in name]
    counts = collections.Counter(struct.unpack("<q", content)[0] for content in contents if len(content) == 8)
    check(counts[STEPS] >= BATCH_NORMS, f"not {BATCH_NORMS} batch norms that have seen {STEPS} batches: {counts}")


def refuses_wrong_numbers_of_epochs() -> None:
    for text in ("many", "0", "-1", "2.5", "3x", "", "99999999999999999999"):
        check_refused(["", text], f"EPOCHS: expected a whole number from 1 to 1000000, got '{text}'")


def refuses_wrong_files(folder: pathlib.Path) -> None:
    missing = folder / "nowhere"
    check_refused(
        [str(missing)], f"{missing}/data_batch_1.bin: no such file; expected FOLDER to hold the binary version of CIFAR-10"
    )
    train = folder / "data_batch_1.bin"
    for size in (0, RECORD + 1):
        train.write_bytes(bytes(size))
        check_refused([str(folder)], f"{train}: expected records of {RECORD} bytes, got {size} bytes")
    train.write_bytes(bytes(2 * RECORD) + bytes([10]) + bytes(RECORD - 1))
    check_refused([str(folder)], f"{train}: expected labels from 0 to 9, got 10 of image 2")


def reads_files(folder: pathlib.Path) -> None:
    for name, images in (("data_batch_1.bin", 70), ("test_batch.bin", 20)):
        (folder / name).write_bytes(b"".join(bytes([image % 10]) + bytes(25 * (image % 10) for _ in range(RECORD - 1)) for image in range(images)))
    code, output = run([str(folder), "1"])
    check(code == 0 and "\nepoch 1  " in output, f"on files it ended with {code}:\n{output}")


with tempfile.TemporaryDirectory() as name:
    refuses_wrong_numbers_of_epochs()
    refuses_wrong_files(pathlib.Path(name))
    reads_files(pathlib.Path(name))
    trains(pathlib.Path(name))
