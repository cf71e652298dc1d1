#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Builds and runs all that needs a GPU, from a bare checkout, in pieces; prints one table of what came of it.

usage: gpu.py [options] BUILD [PART ...]
  BUILD  a build folder of its own, in which the part `build` configures a Release build
  PART   build       configures, and builds the tests with the label gpu, the benchmarks, and cifar10 for the parts that need it
         tests       each of these test programs, the one on whose results the others rest first
         sanitizer   compute-sanitizer's tools on them
         benchmarks  bench/check.py --device cuda, and the figures of step_bench and training_bench
         train       cifar10 in float16, stopped and resumed: the same weights as without a stop
         evidence    bench/experiments/run.py --size gpu, which takes days; only where it is named
         default: all except evidence

Every result is a line of JSON in a file (BUILD/gpu/records.jsonl, or --records) as soon as it is known, and the table is made of
that file: a run that was killed has lost nothing, and the same command goes on from there. --again does rows anew, and
--again-failed those that have not passed; `build` is always done. The programs' output lies in the folder logs beside the file.

--with DIR serves a machine without a network: GoogleTest and Google Benchmark as Debian packages (apt-get download libgtest-dev
libbenchmark-dev libbenchmark1debian), or as folders or archives of their sources, named googletest... and benchmark...

Exits with 0 where everything has passed, 1 where something failed, was skipped or could not run, 77 where there is no GPU.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

sys.dont_write_bytecode = True
from gpu_runs import SKIPPED, STOPPED, Records, Runner, judge, judge_evidence, judge_sanitizer  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
PARTS = ("build", "tests", "sanitizer", "benchmarks", "train", "evidence")
LIMITS = {"build": 1800, "tests": 90, "sanitizer": 600, "benchmarks": 300, "train": 180, "evidence": 540}  # seconds of a program
# The first failure in this order is the one to mend.
ORDER = ("sphere_cuda_gpu", "sphere_", "folding", "capture_", "companions", "fused", "grad_scaler", "nccl")

# compute-sanitizer makes launches wait, and looks after each allocation alone only where LibTorch does not cut its tensors out
# of large ones, which in turn rules out graphs: LibTorch refuses to capture without its cache. tests/gpu_script_test.py
# looks for tests that capture and are not in this list.
NOT_WHERE_LAUNCHES_WAIT = ["CudaStream.StepReturnsWhileTheDeviceIsBusy", "CudaStream.AsksTheDeviceForNoMemoryAfterTheFirstStep"]
# Thousands of launches, each many times slower under a tool; smaller tests run the same kernels.
LONG = ["*CudaTableOfDtypes.TakesAnyNumberOfLayersInOneCall*", "FusedOnAGpu*.EqualsTheUnfusedOverAThousandSteps"]
CAPTURES = [
    "CapturedStep.IsRefusedWithItsNumbersOnTheHost",
    "CapturedStep.IsRefusedWithoutAWarmUp",
    "CapturedStep.ReplaysLAWNAroundFusedAdamAcrossTheSwitch",
    "CapturedStep.ReplaysLAWNAroundFusedAdamWPerOutputUnit",
    "CapturedStep.ReplaysLAWNAroundFusedSGDAcrossTheSwitch",
    "CapturedStep.ReplaysTheSwitchToScaledRadii",
    "CapturedStep.ReplaysWhatDoesNotFold",
    "CudaCompanions.LaunchFiveKernelsForHundredsOfTensors",
    "CudaCompanions.ReplayInAGraphWhatTheyDoEagerly",
    "CudaStream.LaunchesAtMostFourKernelsForAThousandLayers",
    "CudaStream.ReplaysInAGraphWhatItDoesEagerly",
    "FirstCall.IsCapturedAsAnyOther",
    "ParametersOfAnotherStream.AreSteppedInAGraph",
]
# cuBLASLt's kernels in bfloat16, on sm_90: initcheck takes what they write for uninitialised, and under racecheck they fail with
# an internal error of the tool (compute-sanitizer of CUDA 13.0).
NOT_FOLLOWED = ["CudaTable.KeepsTheNormsOfWeightsInBFloat16"]
LAWN_ALONE = ["--kernel-name", "kns=lawn"]
SANITIZERS = {
    # NCCL asks the runtime for kernels that it need not have, which would count as errors.
    "memcheck": {"cached": False, "options": [*LAWN_ALONE, "--report-api-errors", "no"], "left_out": []},
    "racecheck": {"cached": True, "options": LAWN_ALONE, "left_out": NOT_FOLLOWED},
    # Memory that a kernel has initialised which is not watched would count as uninitialised: all are.
    "initcheck": {"cached": False, "options": [], "left_out": NOT_FOLLOWED},
    "synccheck": {"cached": True, "options": LAWN_ALONE, "left_out": []},
}
JOB = ["--network", "resnet20", "--train-size", "10000", "--test-size", "1000", "--epochs", "20", "--batch-size", "64", "--seed", "3",
       "--precision", "float16", "--device", "cuda", "--lawn"]
STOP_AFTER = 5  # seconds
QUESTIONS = ("optimizers", "networks", "free_steps", "ablations", "batch_size")  # those of cifar10: ResNet-18 first


def gpus():
    """Returns [(name, compute capability)], and why there is none."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return [], "CUDA_VISIBLE_DEVICES hides them"
    query = ["nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True)
    except OSError:
        return [], "there is no nvidia-smi"
    found = re.findall(r"^(.+), *(\d+\.\d+)$", shown.stdout, re.MULTILINE) if shown.returncode == 0 else []
    return found, " ".join((shown.stdout + shown.stderr).split())[:200]


def find_tool(name):
    """A program of the CUDA toolkit, also where the toolkit is not on the path."""
    folders = [os.path.join(os.environ[root], "bin") for root in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(root)]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join([*folders, "/usr/local/cuda/bin"]))


def brought(folder, unpacked, dry):
    """Unpacks what lies in `folder`; returns the options of CMake by which it is found."""
    options = []
    packages = sorted(folder.glob("*.deb"))
    for package in packages:
        print(f"$ {shlex.join(['dpkg', '-x', str(package), str(unpacked)])}")
        if not dry:
            unpacked.mkdir(parents=True, exist_ok=True)
            subprocess.run(["dpkg", "-x", package, unpacked], check=True)
    if packages:
        options += [f"-DGTest_ROOT={unpacked}/usr", f"-Dbenchmark_ROOT={unpacked}/usr"]
    for name, pattern in (("GTEST", "(google|g)test"), ("BENCHMARK", "(google[-_]?)?benchmark")):
        sources = sorted(path for path in folder.iterdir() if re.match(pattern, path.name) and path.suffix != ".deb")
        if not sources:
            continue
        source = sources[0]
        if source.is_file():
            target = unpacked / name.lower()
            print(f"# unpacks {source} into {target}")
            if not dry:
                shutil.unpack_archive(source, target)
            source = target
        found = sorted(source.glob("*/CMakeLists.txt")) if not (source / "CMakeLists.txt").exists() else []
        options.append(f"-DFETCHCONTENT_SOURCE_DIR_{name}={found[0].parent if found else source}")
    if not options:
        sys.exit(f"gpu.py: expected *.deb, googletest... or benchmark... in {folder} (--with), got none of them")
    return options


class Session:
    """The parts, on one build folder."""

    def __init__(self, options, found):
        self.options, self.build = options, options.build
        self.state = self.build / "gpu"
        path = options.records or self.state / "records.jsonl"
        self.records = Records(path)
        self.runner = Runner(path.parent / "logs", options.dry_run)
        self.gpu = found[0][0] if found else "none"
        self.arch = options.arch or (";".join(sorted({capability for _, capability in found})) or "CAPABILITY")
        self.planned = []
        programs, _, self.tests = options.filter.partition(":")
        self.programs_like = re.compile(programs)

    def limit(self, part):
        return self.options.limit or LIMITS[part]

    def add(self, name, result, ended=None):
        if not self.options.dry_run:
            self.records.add(name, result, ended.seconds if ended else 0, ended.output if ended else "", gpu=self.gpu)

    def wanted(self, name, always=False):
        """Whether a row is to be done; it counts for the exit status in any case."""
        self.planned.append(name)
        known = self.records.rows.get(name)
        if known is None or always or self.options.again or self.options.dry_run:
            return True
        if self.options.again_failed and not known["result"].startswith("passed"):
            return True
        print(f"{name}: {known['result']} (from before)", flush=True)
        return False

    def run(self, name, part, command, environment=None, judge=judge, always=False):
        """Runs a command for a row, unless the row is there; `judge(ended)` words the result."""
        if self.wanted(name, always):
            self.run_wanted(name, part, command, environment, judge)

    def run_wanted(self, name, part, command, environment, judge):
        ended = self.runner.run(name, command, self.limit(part), environment)
        if ended is not None:
            self.add(name, judge(ended, self.limit(part)), ended)

    def run_together(self, part, rows, judge=judge):
        """Runs (name, command, environment) for rows, --jobs of them at once."""
        rows = [row for row in rows if self.wanted(row[0])]
        pool = concurrent.futures.ThreadPoolExecutor(self.options.jobs)
        try:
            for done in [pool.submit(self.run_wanted, name, part, command, environment, judge) for name, command, environment in rows]:
                done.result()
        except BaseException:  # Ctrl-C, SIGTERM
            pool.shutdown(wait=False, cancel_futures=True)
            self.runner.stop()
            raise
        finally:
            pool.shutdown()

    # --- the parts ----------------------------------------------------------------------------------------------------

    def run_build(self):
        ours = self.state / "configured"
        if (self.build / "CMakeCache.txt").exists() and not ours.exists():
            sys.exit(f"gpu.py: {self.build} is configured for something else; name a build folder of its own")
        if not find_tool("nvcc") and not self.options.dry_run:
            print("there is no nvcc: without it there are no kernels, and their tests are skipped", flush=True)
        examples = {"train", "evidence"} & set(self.options.parts)
        command = ["cmake", "-S", ROOT, "-B", self.build, "-G", "Ninja", "--compile-no-warning-as-error",
                   "-DCMAKE_BUILD_TYPE=Release", f"-DTORCH_CUDA_ARCH_LIST={self.arch}", "-DLAWN_TEST_PACKAGING=OFF",
                   "-DLAWN_MPI=OFF", "-DLAWN_INSTALL_LIBTORCH=OFF", "-DLAWN_BUILD_BENCHMARKS=ON",
                   f"-DLAWN_BUILD_EXAMPLES={'ON' if examples else 'OFF'}", *self.options.cmake]
        if self.options.brought:
            command += brought(self.options.brought.resolve(), self.state / "packages", self.options.dry_run)
        if not self.options.dry_run:
            self.state.mkdir(parents=True, exist_ok=True)
            ours.touch()
        self.run("configure", "build", command, always=True)
        programs = {pathlib.Path(command[0]).name: None for command in self.test_programs().values()}
        targets = [*programs, "step_bench", "training_bench", *(["cifar10"] if examples else [])]
        command = ["cmake", "--build", self.build, "--parallel", os.cpu_count(), "--target", *targets, "--", "-k", "0"]
        self.run("build", "build", command, always=True)

    def test_programs(self):
        """Returns {name: command} of ctest's entries with the label gpu, in the order in which they are to be run."""
        names = {}
        if (self.build / "CTestTestfile.cmake").exists():
            shown = subprocess.run(["ctest", "--test-dir", self.build, "-L", "^gpu$", "--show-only=json-v1"],
                                   capture_output=True, text=True)
            if shown.returncode == 0:
                names = {test["name"]: test.get("command") for test in json.loads(shown.stdout)["tests"]}
        elif self.options.dry_run:  # as tests/CMakeLists.txt names them
            sources = (ROOT / "tests").rglob("*_gpu_test.cpp")
            names = {"_".join(path.relative_to(ROOT / "tests").with_suffix("").parts): None for path in sources}

        def place(name):
            return next((place for place, part in enumerate(ORDER) if part in name), len(ORDER)), name

        # ctest gives no command before the program is built. All tests on a GPU are one program, except those of ranks.
        def unbuilt(name):
            return [str(self.build / "tests" / (name if name.startswith("distributed_") else "gpu_test"))]

        return {name: names[name] or unbuilt(name) for name in sorted(names, key=place)}

    def each_program(self, rows):
        """Yields (row, command) of each chosen program that is there; `rows(name)` names its row."""
        programs = {name: command for name, command in self.test_programs().items() if self.programs_like.search(name)}
        if not programs:
            self.planned.append(rows("programs"))
            self.add(rows("programs"), f"could not run: none is configured in {self.build} that matches the filter")
        for name, command in programs.items():
            if self.options.dry_run or pathlib.Path(command[0]).exists():
                yield rows(name), command
            elif self.wanted(rows(name), always=True):
                self.add(rows(name), "could not run: it is not built")

    @staticmethod
    def split(command):
        """Returns a program with its arguments, and which of its tests it is to run."""
        flag = "--gtest_filter="
        tests = [word.removeprefix(flag) for word in command if word.startswith(flag)]
        return [word for word in command if not word.startswith(flag)], tests[-1] if tests else "*"

    def row(self, what, name):
        return f"{what} {name}" + (f" {self.tests}" if self.tests else "")

    def run_tests(self):
        rows = []
        for row, command in self.each_program(lambda name: self.row("test", name)):
            program, tests = self.split(command)
            rows.append((row, [*program, f"--gtest_filter={self.tests or tests}"], None))
        self.run_together("tests", rows)

    def run_sanitizer(self):
        sanitizer = find_tool("compute-sanitizer")
        rows = []
        for tool in self.options.tools:
            if not sanitizer and not self.options.dry_run:
                if self.wanted(tool, always=True):
                    self.add(tool, "could not run: compute-sanitizer is not installed")
                continue
            how = SANITIZERS[tool]
            left_out = NOT_WHERE_LAUNCHES_WAIT + LONG + how["left_out"] + ([] if how["cached"] else CAPTURES)
            chosen, _, excluded = self.tests.partition("-")
            left_out = ":".join(([excluded] if excluded else []) + left_out)
            for row, command in self.each_program(lambda name, tool=tool: self.row(tool, name)):
                program, tests = self.split(command)
                rows.append((row, [sanitizer or "compute-sanitizer", "--tool", tool, "--error-exitcode", "1", *how["options"],
                                   *program, f"--gtest_filter={chosen or tests}-{left_out}"],
                             {} if how["cached"] else {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}))
        self.run_together("sanitizer", rows, judge_sanitizer)

    def run_benchmarks(self):
        """What is promised, then all steps, then whole training steps; the figures lie beside the logs."""
        self.run("benchmarks", "benchmarks", [sys.executable, "-B", ROOT / "bench/check.py", "--device", "cuda", self.build])
        programs = [("steps", "step_bench", []),
                    *((f"training {precision}", "training_bench", [f"--precision={precision}"])
                      for precision in ("float32", "bfloat16", "float16"))]
        for name, program, options in programs:
            row = f"benchmarks {name}"
            figures = self.runner.logs / f"{row.replace(' ', '-')}.json"
            self.run(row, "benchmarks",
                     [sys.executable, "-B", ROOT / "bench/compare.py", "--repetitions", 5, "--output", figures, "--run",
                      self.build / "bench" / program, "--", "--device=cuda", *options])

    def run_train(self):
        """The same job without a stop, and stopped and resumed."""
        if not self.wanted("train"):
            return
        folder = self.state / "train"
        if not self.options.dry_run:
            shutil.rmtree(folder, ignore_errors=True)
        job = [self.build / "examples/apps/cifar10/cifar10", *JOB]
        runs = (("train without a stop", [*job, "--out", folder / "whole"], 0),
                ("train stopped", [*job, "--out", folder / "stopped", "--stop-after", STOP_AFTER], STOPPED),
                ("train resumed", [*job, "--out", folder / "stopped", "--resume", folder / "stopped/lawn-adam.pt"], 0))
        weights, seconds = [], 0
        for name, command, expected in runs:
            ended = self.runner.run(name, command, self.limit("train"))
            if ended is None:
                continue
            seconds += ended.seconds
            if ended.status != expected:
                return self.add("train", f"failed: {name.removeprefix('train ')}, it ended with {ended.status} instead of "
                                         f"{expected}", ended)
            weights += re.findall(r"^fingerprint of the weights +(\w+)", ended.output, re.MULTILINE)
        if not self.options.dry_run:
            ended.seconds = seconds
            same = len(weights) == 2 and weights[0] == weights[1]
            self.add("train", f"passed, weights {weights[0]}" if same else f"failed: weights {weights} instead of twice the same", ended)

    def run_evidence(self):
        roots = [word for root in self.options.root for word in ("--root", root)]
        for question in QUESTIONS:
            known = self.records.rows.get(f"evidence {question}")
            self.run(f"evidence {question}", "evidence",
                     [sys.executable, "-B", ROOT / "bench/experiments/run.py", "--size", "gpu", "--jobs", 1, "--threads", 0,
                      "--build", self.build, "--work", self.state / "work", "--results", self.runner.logs.parent / "results",
                      "--budget-seconds", int(max(1, self.limit("evidence") - 60)), *roots, question],
                     judge=judge_evidence, always=known is not None and "goes on" in known["result"])


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage=argparse.SUPPRESS)
    parser.add_argument("build", type=pathlib.Path, metavar="BUILD")
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--filter", default="", metavar="PROGRAMS[:TESTS]",
                        help="a regular expression for the programs' names, and GoogleTest's filter of tests in them")
    parser.add_argument("--tools", nargs="+", default=list(SANITIZERS), choices=SANITIZERS, help="of compute-sanitizer [all]")
    parser.add_argument("--limit", type=float, metavar="SECONDS",
                        help="of each program " + str([f"{part} {seconds}" for part, seconds in LIMITS.items()]).replace("'", ""))
    parser.add_argument("--jobs", type=int, default=1, metavar="N",
                        help="tests, or tools on them, at once [1]; --again-failed without it shows which failures are its own")
    parser.add_argument("--with", type=pathlib.Path, dest="brought", metavar="DIR", help="GoogleTest and Google Benchmark")
    parser.add_argument("--arch", help="compute capabilities to compile for, as in 9.0 [those of the GPUs here]")
    parser.add_argument("--cmake", action="append", default=[], metavar="OPTION", help="as in --cmake=-DTorch_DIR=...; repeatable")
    parser.add_argument("--root", action="append", default=[], metavar="DATA=DIR", help="for evidence, as in cifar10=DIR")
    parser.add_argument("--records", type=pathlib.Path, metavar="FILE", help="where the rows are kept")
    parser.add_argument("--again", action="store_true", help="do rows that are there anew")
    parser.add_argument("--again-failed", action="store_true", help="those that have not passed")
    parser.add_argument("--dry-run", action="store_true", help="print all commands and run none")
    options = parser.parse_intermixed_args(arguments)
    if unknown := [part for part in options.parts if part not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}; expected some of {', '.join(PARTS)}")
    options.parts = [part for part in PARTS if part in (options.parts or PARTS[:-1])]
    options.build = options.build.absolute()
    options.records = options.records.absolute() if options.records else None
    return options


def main(arguments):
    options = parse(arguments)
    found, why = gpus()
    if not found and not options.dry_run and options.parts != ["build"] or (not found and not options.arch and not options.dry_run):
        print(f"skipped: there is no GPU here: {why}")
        return SKIPPED
    session = Session(options, found)
    print(f"GPUs: {', '.join(f'{name} ({capability})' for name, capability in found) or why}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    for part in options.parts:
        getattr(session, f"run_{part}")()
    if options.dry_run:
        return 0
    session.records.print_table()
    # Where there is a GPU, a test that is skipped has not shown what it is there for.
    rows = session.records.rows
    bad = [name for name in session.planned if name not in rows or not rows[name]["result"].startswith("passed")]
    print(f"{len(session.planned) - len(bad)} of {len(session.planned)} passed" + (f": not {', '.join(bad)}" if bad else ""))
    return int(bool(bad))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
