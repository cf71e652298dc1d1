#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains on two hosts, a rank on each, and cuts what joins them, stops or kills a rank, kills all that runs on a host, sets a
host's clock forward, slows a rank down, or loses all packets for a while. The
hosts are network namespaces with a name of their own, joined by a pair of virtual network devices; Open MPI reaches the second
one by a script in place of ssh. What it takes is root, `ip netns` and `unshare`; without them the test ends with 77.

    two_hosts_test.py PATH_OF_LOST_RANK MPIEXEC...
"""
import concurrent.futures
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Callable

PROGRAM, MPIEXEC = sys.argv[1], sys.argv[2:]
ADDRESSES = ("10.231.0.1", "10.231.0.2")
NOWHERE = "02:00:00:00:00:99"  # the address of no device: packets to it are lost without a word
LOST = 8  # seconds for which packets are lost
# For Open MPI alone: that the loss of a rank does not have it end the others.
GO_ON = {"OMPI_MCA_orte_enable_recovery": "1", "OMPI_MCA_orte_abort_on_non_zero_status": "0"}
# `ip netns exec` and a name of one's own, for a command; on the host b also a monotonic clock of $CLOCK seconds later.
ENTER = ('case "$1${CLOCK:-0}" in a*|b0) clock= ;; *) clock="--time --monotonic $CLOCK" ;; esac; '
         'exec ip netns exec "$0-$1" unshare --uts $clock sh -c \'hostname "$0"; shift; exec "$@"\' "$1" "$@"')


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


class Hosts:
    """Two hosts, a and b, that are gone with all that runs on them when the context ends."""

    def __init__(self, name: str, folder: pathlib.Path, clock: int = 0) -> None:
        self.clock = clock
        name = name.replace(" ", "-")
        self.name = f"lawn-{os.getpid()}-{name}"
        self.folder = folder / name
        self.folder.mkdir()
        self.spaces = [f"{self.name}-a", f"{self.name}-b"]
        self.devices: list[str] = []

    def __enter__(self) -> "Hosts":
        try:
            self.join()
        except subprocess.CalledProcessError:
            self.__exit__()
            raise
        return self

    def join(self) -> None:
        for space in self.spaces:
            ip("netns", "add", space)
            ip("-n", space, "link", "set", "lo", "up")
        ip("-n", self.spaces[0], "link", "add", "v0", "type", "veth", "peer", "name", "v0", "netns", self.spaces[1])
        for space, address in zip(self.spaces, ADDRESSES):
            ip("-n", space, "addr", "add", f"{address}/24", "dev", "v0")
            ip("-n", space, "link", "set", "v0", "up")
            self.devices.append(re.search(r"link/ether (\S+)", ip("-n", space, "link", "show", "v0"))[1])
        self.lose_packets(False)

    @staticmethod
    def kill(space: str) -> None:
        """All that runs there."""
        there = subprocess.run(["ip", "netns", "pids", space], check=False, capture_output=True, text=True).stdout
        for process in there.split():
            try:
                os.kill(int(process), signal.SIGKILL)
            except ProcessLookupError:
                pass

    def __exit__(self, *_: object) -> None:
        for space in self.spaces:
            self.kill(space)
            subprocess.run(["ip", "netns", "del", space], check=False, stderr=subprocess.DEVNULL)

    def lose_packets(self, lose: bool) -> None:
        for here, there in ((0, 1), (1, 0)):
            to = NOWHERE if lose else self.devices[there]
            ip("-n", self.spaces[here], "neigh", "replace", ADDRESSES[there], "lladdr", to, "dev", "v0", "nud", "permanent")

    def cut(self) -> None:
        ip("-n", self.spaces[0], "link", "set", "v0", "down")

    def train(self, limit: int, answers: int) -> None:
        """Begins to train, up to the step in which both ranks wait."""
        agent = self.folder / "agent"
        agent.write_text(f"#!/bin/sh\nhost=$1\nshift\nset -- \"$host\" sh -c \"$*\"\n{ENTER.replace('$0', self.name)}\n")
        agent.chmod(0o755)
        self.process = subprocess.Popen(
            [
                *["sh", "-c", ENTER, self.name, "a", *MPIEXEC, "-n", "2", "--host", "a,b"],
                *["--mca", "plm_rsh_agent", str(agent), "--mca", "btl", "tcp,self"],
                *[PROGRAM, "wait", str(limit), str(answers), str(self.folder)],
            ],
            env={**os.environ, **GO_ON, "CLOCK": str(self.clock)}, stdout=(self.folder / "output").open("w"), stderr=subprocess.STDOUT,
        )
        for rank in range(2):
            self.rank(rank)

    def file(self, name: str, whose: int) -> str:
        """What a file holds once a rank has left it."""
        path = self.folder / f"{name}-{whose}"
        while not path.exists():
            code = self.process.poll()
            if code is not None and not path.exists():
                sys.exit(f"FAILED: {self.name} ended with {code}:\n{(self.folder / 'output').read_text()}")
            time.sleep(0.05)
        return path.read_text()

    def rank(self, number: int) -> int:
        """Its process."""
        return int(self.file("ready", number))

    def go(self) -> None:
        (self.folder / "go").touch()


def weights(folder: pathlib.Path) -> str:
    """Of an undisturbed run on one host."""
    (folder / "go").touch()
    command = [*MPIEXEC, "-n", "2", PROGRAM, "wait", "600", "600", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (folder / "end-0").read_text().removeprefix("rank 0 ")


def case(name: str, folder: pathlib.Path, limit: int, answers: int, what: Callable[[Hosts], None], ends: dict[int, str],
         clock: int = 0) -> None:
    """Does `what` to two hosts that train, and looks how ranks end."""
    with Hosts(name, folder, clock) as hosts:
        hosts.train(limit, answers)
        what(hosts)
        for rank, pattern in ends.items():
            said = hosts.file("end", rank)
            if not re.search(pattern, said):
                sys.exit(f"FAILED: {name}: rank {rank} says {said}")
            print(f"{name}: {said}", end="", flush=True)


def silent(other: int) -> str:
    return rf"no message from rank {other} for \d+ ms, since collective \d+, .* in step 4: it is dead, hangs or is busy"


def cut(hosts: Hosts) -> None:
    hosts.cut()
    hosts.go()


def signal_rank_1(what: signal.Signals) -> Callable[[Hosts], None]:
    def send(hosts: Hosts) -> None:
        os.kill(hosts.rank(1), what)
        hosts.go()

    return send


def lives(process: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def kill_host_b(hosts: Hosts) -> None:
    """With the host goes the daemon of Open MPI, whose launcher then ends the other ranks, whatever it was told. On a machine under
    load it has been seen to wait for ever instead; rank 0 ends in any case."""
    rank = hosts.rank(0)
    hosts.kill(hosts.spaces[1])
    hosts.go()
    end = time.monotonic() + 60
    while lives(rank):
        if time.monotonic() > end:
            sys.exit("FAILED: host killed: rank 0 is left")
        time.sleep(0.05)
    said = hosts.folder / "end-0"
    if said.exists():
        if not re.search(silent(1), said.read_text()):
            sys.exit(f"FAILED: host killed: rank 0 says {said.read_text()}")
        print(f"host killed: {said.read_text()}", end="", flush=True)
        return
    code = hosts.process.wait(60)
    left = ip("netns", "pids", hosts.spaces[0]).split()
    if code == 0 or left:
        sys.exit(f"FAILED: host killed: the launcher ended with {code}, and left {left}")
    print(f"host killed: the launcher ended with {code}, and rank 0 with it", flush=True)


def lose_for_a_while(hosts: Hosts) -> None:
    hosts.lose_packets(True)
    hosts.go()
    time.sleep(LOST)
    hosts.lose_packets(False)


def check_possible() -> None:
    reason = ""
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("unshare"):
        reason = "it takes root, ip and unshare"
    else:
        try:
            with tempfile.TemporaryDirectory() as name, Hosts("try", pathlib.Path(name)) as hosts:
                command = ["sh", "-c", ENTER, hosts.name, "a", "true"]
                reason = subprocess.run(command, check=False, capture_output=True, text=True).stderr
        except subprocess.CalledProcessError as error:
            reason = error.stderr or str(error)
    if reason:
        print(f"skipped: there can be no two hosts here: {reason.strip()}")
        sys.exit(77)


check_possible()
with tempfile.TemporaryDirectory() as name:
    work = pathlib.Path(name)
    no_culprit = r"(none of them came late, and|has completed:) messages .*were lost or are late"
    expected = f"rank \\d {re.escape(weights(work))}"
    # Side by side, since they wait for most of the time.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        cases = [
            pool.submit(case, *arguments)
            for arguments in (
                ("link cut", work, 4, 2, cut, {0: silent(1), 1: silent(0)}),
                ("rank 1 stopped", work, 4, 2, signal_rank_1(signal.SIGSTOP), {0: silent(1)}),
                ("rank 1 killed", work, 4, 2, signal_rank_1(signal.SIGKILL), {0: silent(1)}),
                ("host killed", work, 4, 2, kill_host_b, {}),
                ("clock off", work, 60, 60, Hosts.go, {0: expected, 1: expected}, 10**7),
                ("packets lost within the limit", work, 600, 600, lose_for_a_while, {0: expected, 1: expected}),
                ("packets lost beyond the limit", work, 5, 600, lose_for_a_while, {0: no_culprit, 1: no_culprit}),
            )
        ]
        for each in cases:
            each.result()
