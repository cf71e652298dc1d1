#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Loses one rank of several in the middle of training, and checks that every other one ends with an error that names it, and
that nothing is left running.

    lost_rank_test.py PATH_OF_PROGRAM MPIEXEC...
"""
import os
import re
import subprocess
import sys

PROGRAM, MPIEXEC = sys.argv[1], sys.argv[2:]
LIMIT = 4  # seconds that a rank waits for the others; half as many more for their answers
# For Open MPI alone: that the loss of a rank does not have it end the others.
GO_ON = {
    **{"OMPI_MCA_orte_enable_recovery": "1", "OMPI_MCA_orte_abort_on_non_zero_status": "0"},
    **{"PRTE_MCA_prte_enable_recovery": "1"},
}


def check(holds: bool, what: str) -> None:
    if not holds:
        sys.exit(f"FAILED: {what}")


def run(ranks: int, how: str, environment: dict[str, str]) -> tuple[int, str]:
    process = subprocess.Popen(
        [*MPIEXEC, "-n", str(ranks), PROGRAM, how, str(LIMIT)],
        env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=300)  # a rank that hangs does so for an hour
    except subprocess.TimeoutExpired:
        process.terminate()  # mpirun takes its ranks along
        output, _ = process.communicate()
        check(False, f"{how} on {ranks} ranks was still running after 300 s:\n{output}")
    return process.returncode, output


def expect_named(ranks: int, how: str, environment: dict[str, str]) -> None:
    _, output = run(ranks, how, environment)  # with these settings mpirun ends well in any case
    for rank in range(ranks):
        if rank == 1:
            continue
        found = re.search(rf"^rank {rank} ended after (\d+) ms: (.*)$", output, re.MULTILINE)
        check(found is not None, f"{how} on {ranks} ranks: no word of rank {rank}:\n{output}")
        took, message = int(found.group(1)), found.group(2)
        silent = r"no message from rank 1 for \d+ ms, since collective \d+, .* in step 4: it is dead, hangs or is busy"
        check(re.search(silent, message) is not None, f"{how}: rank {rank} says {message}")
        print(f"{how:5s} on {ranks} ranks, rank {rank} after {took} ms: {message}")


for ranks in (2, 3, 4):
    expect_named(ranks, "kill", GO_ON)
expect_named(3, "exit", GO_ON)
expect_named(3, "hang", {})

# Without those settings mpirun ends all ranks itself, at once, and says which one was lost.
code, output = run(3, "kill", {})
check(code != 0 and re.search(r"rank 1\b.*signal 9", output, re.DOTALL) is not None, f"mpirun says ({code}):\n{output}")
print("kill  on 3 ranks, by mpirun")

# A rank that is always a little slower is not lost, though it is later in all than the limit.
code, output = run(2, "slow", {})
check(code == 0 and len(re.findall(r"^rank \d trained to ", output, re.MULTILINE)) == 2, f"slow: mpirun says ({code}):\n{output}")
print("a rank 20 ms slower in each of 400 steps: all trained to the end")
