#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""scripts/gpu.py on a machine without a GPU: stubs stand in for nvidia-smi, nvcc, cmake, ctest, dpkg, compute-sanitizer and for
what would have been built. Also whether its list of tests that capture a CUDA graph is complete.

usage: gpu_script_test.py [GpuScript.test_...]
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import unittest
import unittest.mock

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import gpu  # noqa: E402
import gpu_runs  # noqa: E402

SCRIPT = ROOT / "scripts/gpu.py"
PROGRAMS = ("capture_capturable_gpu_test", "sphere_cuda_gpu_test", "companions_cuda_gpu_test")  # as ctest lists them
BENCHMARKS = ("benchmarks", "benchmarks steps", "benchmarks training float32", "benchmarks training bfloat16",
              "benchmarks training float16")
PASSES = 'echo "[ RUN      ] A.B"; echo "[       OK ] A.B (1 ms)"; echo "[  PASSED  ] 1 test."'
CIFAR10 = """
case "$*" in
  *--stop-after*) echo stopped; exit ${STOPS_WITH:-130} ;;
  *--resume*) weights=${RESUMED:-abc} ;;
  *) weights=abc ;;
esac
echo "fingerprint of the weights         $weights"
"""


def ends(process):
    """Waits for the end of a killed process, which by itself would go on for 100 s."""
    for _ in range(600):
        try:
            if "State:\tZ" in pathlib.Path(f"/proc/{process}/status").read_text():
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


class GpuScript(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = pathlib.Path(temporary.name).resolve()
        self.build, self.calls = self.root / "build", self.root / "calls"
        self.calls.write_text("")
        self.stub("bin/nvidia-smi", 'echo "Some GPU, 9.0"')
        self.stub("bin/nvcc", "")
        self.stub("bin/dpkg", 'mkdir -p "$3/usr"')
        # Here each is a program of its own, so that calls can be told apart.
        listed = {"tests": [{"name": name, "command": [str(self.program(name)), f"--gtest_filter=*{name[:4]}*.*"]} for name in PROGRAMS]}
        self.stub("bin/ctest", f"echo '{json.dumps(listed)}'")
        self.stub("bin/cmake", f'if [ "$1" = -S ]; then mkdir -p {self.build}; '
                               f"touch {self.build}/CMakeCache.txt {self.build}/CTestTestfile.cmake; fi")
        self.stub("bin/compute-sanitizer", 'while [ "${1#/}" = "$1" ]; do shift; done; "$@"; code=$?; '
                                           'echo "========= ERROR SUMMARY: 0 errors"; exit $code')

    def program(self, name):
        return self.build / "tests" / name

    def stub(self, path, line):
        """Makes a program of a shell script that keeps its calls."""
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{path.name} $*" >> {self.calls}\n{line}\n')
        path.chmod(0o755)

    def built(self, **lines):
        """Has everything been built; `lines` says what a program does that does not simply pass."""
        (self.build / "gpu").mkdir(parents=True, exist_ok=True)
        (self.build / "CTestTestfile.cmake").touch()
        for name in PROGRAMS:
            self.stub(self.program(name), lines.get(name, PASSES))
        self.stub(self.build / "examples/apps/cifar10/cifar10", CIFAR10)

    def environment(self, **more):
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA_", "GTEST_"))}
        return {**clean, "PATH": f"{self.root}/bin:/usr/bin:/bin", **more}

    def run_script(self, *arguments, **more):
        """Returns its exit status and what it prints."""
        run = subprocess.run([sys.executable, "-B", SCRIPT, self.build, *arguments], text=True, stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, env=self.environment(**more))
        return run.returncode, run.stdout

    def called(self, name):
        return [line for line in self.calls.read_text().splitlines() if line.split()[0] == name]

    def rows(self, path=None):
        lines = (path or self.build / "gpu/records.jsonl").read_text().splitlines()
        return {row["row"]: row["result"] for row in map(json.loads, lines)}

    # --- what it says -----------------------------------------------------------------------------------------------------

    def test_skips_where_there_is_no_gpu(self):
        self.stub("bin/nvidia-smi", 'echo "No devices were found"; exit 6')
        code, output = self.run_script()
        self.assertEqual(code, 77)
        self.assertIn("there is no GPU here: No devices were found", output)
        self.stub("bin/nvidia-smi", 'echo "Some GPU, 9.0"')
        self.assertEqual(self.run_script(CUDA_VISIBLE_DEVICES="")[0], 77)
        self.assertFalse(self.build.exists())

    def test_prints_every_command_and_runs_none_with_dry_run(self):
        code, output = self.run_script("--dry-run", "build", "tests", "sanitizer", "benchmarks", "train", "evidence")
        self.assertEqual(code, 0, output)
        for part in ("-DCMAKE_BUILD_TYPE=Release", "-DTORCH_CUDA_ARCH_LIST=9.0", "-DLAWN_TEST_PACKAGING=OFF", "-DLAWN_MPI=OFF",
                     "-DLAWN_INSTALL_LIBTORCH=OFF", "-DLAWN_BUILD_BENCHMARKS=ON", "-DLAWN_BUILD_EXAMPLES=ON",
                     "--compile-no-warning-as-error", "step_bench training_bench cifar10", "timeout 90 ", "--tool synccheck", "check.py --device cuda",
                     "--precision float16", "--stop-after 5", "--resume", "run.py --size gpu"):
            self.assertIn(part, output)
        self.assertEqual({line.split()[0] for line in self.calls.read_text().splitlines()}, {"nvidia-smi"})
        self.assertFalse(self.build.exists())
        self.assertIn("-DLAWN_BUILD_EXAMPLES=OFF", self.run_script("--dry-run", "build", "tests")[1])

    def test_refuses_parts_that_it_does_not_know_and_folders_of_other_builds(self):
        self.assertIn("no part testz; expected some of build, tests", self.run_script("testz")[1])
        self.built()  # its tests may be run all the same
        (self.build / "CMakeCache.txt").touch()
        self.assertEqual(self.run_script("tests")[0], 0)
        code, output = self.run_script("build")
        self.assertEqual(code, 1)
        self.assertIn("is configured for something else", output)
        self.assertEqual(self.called("cmake"), [])

    def test_builds_the_gpu_tests_and_what_the_parts_need(self):
        code, output = self.run_script("build", "--arch", "8.6", "--cmake=-DTorch_DIR=/x")
        self.assertEqual(code, 0, output)
        configured, built = self.called("cmake")
        self.assertIn("-DTORCH_CUDA_ARCH_LIST=8.6", configured)
        self.assertIn("-DTorch_DIR=/x", configured)
        self.assertIn("--target sphere_cuda_gpu_test capture_capturable_gpu_test companions_cuda_gpu_test step_bench training_bench -- -k 0", built)
        self.assertEqual(self.run_script("build")[0], 0)
        self.assertEqual(len(self.called("cmake")), 4, "what has changed is built in any case")

    def test_builds_and_misses_each_program_where_none_is_there_yet(self):
        names = ("distributed_nccl_gpu_test", "sphere_cuda_gpu_test", "optim_fused_gpu_test")
        listed = {"tests": [{"name": name} for name in names]}  # ctest gives no command for what is not built
        self.stub("bin/ctest", f"echo '{json.dumps(listed)}'")
        self.assertEqual(self.run_script("build")[0], 0)
        self.assertIn("--target gpu_test distributed_nccl_gpu_test step_bench", self.called("cmake")[1])
        self.stub(self.program("gpu_test"), PASSES)
        code, output = self.run_script("tests")
        self.assertEqual(code, 1)
        self.assertEqual({row: result for row, result in self.rows().items() if row.startswith("test ")}, {
            "test sphere_cuda_gpu_test": "passed", "test optim_fused_gpu_test": "passed",
            "test distributed_nccl_gpu_test": "could not run: it is not built"})

    def test_fails_where_nothing_is_built(self):
        self.built()
        self.program(PROGRAMS[0]).unlink()
        code, output = self.run_script("tests")
        self.assertEqual(code, 1)
        self.assertIn("test capture_capturable_gpu_test: could not run: it is not built", output)

    # --- what was brought along -------------------------------------------------------------------------------------------

    def test_unpacks_debian_packages(self):
        brought = self.root / "brought"
        brought.mkdir()
        for name in ("libgtest-dev_1.deb", "libbenchmark-dev_1.deb"):
            (brought / name).touch()
        self.assertEqual(self.run_script("build", "--with", str(brought))[0], 0)
        packages = self.build / "gpu/packages"
        self.assertIn(f"dpkg -x {brought}/libgtest-dev_1.deb {packages}", self.called("dpkg"))
        self.assertIn(f"-DGTest_ROOT={packages}/usr -Dbenchmark_ROOT={packages}/usr", self.called("cmake")[0])

    def test_takes_sources_as_folders_and_as_archives(self):
        brought = self.root / "brought"
        (brought / "googletest-1.14.0").mkdir(parents=True)
        (brought / "googletest-1.14.0/CMakeLists.txt").touch()
        source = self.root / "benchmark-1.8.3"
        source.mkdir()
        (source / "CMakeLists.txt").touch()
        with tarfile.open(brought / "benchmark-1.8.3.tar.gz", "w:gz") as archive:
            archive.add(source, source.name)
        self.assertEqual(self.run_script("build", "--with", str(brought))[0], 0)
        configured = self.called("cmake")[0]
        self.assertIn(f"-DFETCHCONTENT_SOURCE_DIR_GTEST={brought}/googletest-1.14.0 ", configured)
        self.assertIn(f"-DFETCHCONTENT_SOURCE_DIR_BENCHMARK={self.build}/gpu/packages/benchmark/benchmark-1.8.3", configured)

    def test_refuses_a_folder_with_nothing_in_it(self):
        (self.root / "brought").mkdir()
        code, output = self.run_script("build", "--with", str(self.root / "brought"))
        self.assertEqual(code, 1)
        self.assertIn("expected *.deb, googletest... or benchmark... in", output)

    # --- the results ------------------------------------------------------------------------------------------------------

    def test_runs_the_tests_in_their_order_and_tells_what_became_of_each(self):
        self.built(sphere_cuda_gpu_test='echo "[ RUN      ] A.Hangs"; sleep 100',
                   capture_capturable_gpu_test='echo "[ RUN      ] A.Fails"; echo "[  FAILED  ] A.Fails (0 ms)"; exit 1',
                   companions_cuda_gpu_test='echo "x.cpp:3: Skipped"; echo "there is no GPU"; exit 77')
        start = time.monotonic()
        code, output = self.run_script("tests", "--limit", "1")
        self.assertEqual(code, 1)
        self.assertLess(time.monotonic() - start, 60)
        self.assertEqual(list(self.rows().items()), [
            ("test sphere_cuda_gpu_test", "failed: stopped after 1 s in A.Hangs"),
            ("test capture_capturable_gpu_test", "failed (1) in A.Fails"),
            ("test companions_cuda_gpu_test", "skipped: there is no GPU")])
        self.assertIn("0 of 3 passed: not test sphere_cuda_gpu_test", output)

    def test_names_the_test_that_a_program_died_in(self):
        self.built(sphere_cuda_gpu_test='echo "[ RUN      ] A.B"; echo "[       OK ] A.B (1 ms)"; echo "[ RUN      ] A.Dies"; kill -SEGV $$')
        self.run_script("tests", "--filter", "sphere")
        self.assertEqual(self.rows(), {"test sphere_cuda_gpu_test": "failed (-11) in A.Dies"})

    def test_passes_and_makes_its_table_of_the_file(self):
        self.built()
        records = self.root / "kept/rows.jsonl"
        records.parent.mkdir()
        records.write_text('{"row": "test of old", "result": "passed", "seconds": 1}\n{"row": "half a l')
        code, output = self.run_script("tests", "--records", str(records))
        self.assertEqual(code, 0, output)
        self.assertRegex(output, r"test of old +1\.0  passed\n")
        self.assertRegex(output, r"test sphere_cuda_gpu_test +\d\.\d  passed\n")
        self.assertIn("3 of 3 passed", output)
        self.assertIn("A.B", (records.parent / "logs/test-sphere_cuda_gpu_test.txt").read_text())

    def test_goes_on_where_a_killed_run_ended(self):
        self.built(capture_capturable_gpu_test=f"sleep 100 & echo $! > {self.root}/child; wait")
        process = subprocess.Popen([sys.executable, "-B", SCRIPT, self.build, "tests"], env=self.environment(),
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        child = self.root / "child"
        while not child.exists() or not child.read_text().strip():
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), 128 + signal.SIGTERM)
        self.assertTrue(ends(child.read_text().strip()), "it has left a program running")
        self.assertEqual(self.rows(), {"test sphere_cuda_gpu_test": "passed"})

        self.built()
        code, output = self.run_script("tests")
        self.assertEqual(code, 0, output)
        self.assertIn("test sphere_cuda_gpu_test: passed (from before)", output)
        self.assertEqual(len(self.called("sphere_cuda_gpu_test")), 1)
        self.assertEqual(len(self.called("companions_cuda_gpu_test")), 1)
        self.run_script("tests", "--again")
        self.assertEqual(len(self.called("sphere_cuda_gpu_test")), 2)

    def test_ends_a_program_that_began_while_the_others_were_ended(self):
        runner = gpu_runs.Runner(self.root / "logs")

        class Late(subprocess.Popen):
            def __init__(self, *arguments, **more):
                super().__init__(*arguments, **more)
                runner.stop()

        late = self.root / "late"
        with unittest.mock.patch.object(gpu_runs.subprocess, "Popen", Late):
            self.assertIsNone(runner.run("row", ["sh", "-c", f"sleep 10; touch {late}"], 100))
        self.assertFalse(late.exists())

    def test_runs_several_at_once_and_leaves_none_running_when_it_is_killed(self):
        # Each waits until the other has begun.
        both = f"touch {self.root}/$$.began; while [ $(ls {self.root}/*.began | wc -l) -lt 2 ]; do sleep 0.05; done\n{PASSES}"
        self.built(sphere_cuda_gpu_test=both, capture_capturable_gpu_test=both)
        code, output = self.run_script("tests", "--jobs", "2", "--limit", "20")
        self.assertEqual(code, 0, output)
        self.assertEqual(len(self.rows()), 3)

        sleeps = f"sleep 100 & echo $! > {self.root}/child.$$; wait"
        self.built(sphere_cuda_gpu_test=sleeps, capture_capturable_gpu_test=sleeps)
        process = subprocess.Popen([sys.executable, "-B", SCRIPT, self.build, "tests", "--again", "--jobs", "2"],
                                   env=self.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while sum(bool(child.read_text().strip()) for child in self.root.glob("child.*")) < 2:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(60), 128 + signal.SIGTERM)
        for child in self.root.glob("child.*"):
            self.assertTrue(ends(child.read_text().strip()), "it has left a program running")
        self.assertEqual(len((self.build / "gpu/records.jsonl").read_text().splitlines()), 3)  # nothing is said of these

    def test_loses_nothing_when_it_is_killed_outright(self):
        self.built(capture_capturable_gpu_test="kill -KILL $PPID; sleep 0.2")
        self.assertEqual(self.run_script("tests")[0], -signal.SIGKILL)
        self.assertEqual(self.rows(), {"test sphere_cuda_gpu_test": "passed"})

    def test_keeps_failures_from_before_unless_asked_to_do_them_again(self):
        self.built(capture_capturable_gpu_test="exit 3")
        self.assertEqual(self.run_script("tests")[0], 1)
        self.built()
        self.assertEqual(self.run_script("tests")[0], 1)
        self.assertEqual(self.run_script("tests", "--again-failed")[0], 0)
        self.assertEqual(len(self.called("sphere_cuda_gpu_test")), 1)

    def test_filters_programs_and_tests(self):
        self.built()
        self.assertEqual(self.run_script("tests", "--filter", "sphere|comp:A.*:B.*")[0], 0)
        self.assertEqual(self.called("sphere_cuda_gpu_test"), ["sphere_cuda_gpu_test --gtest_filter=A.*:B.*"])
        self.assertEqual(self.called("capture_capturable_gpu_test"), [])
        self.assertEqual(list(self.rows()), ["test sphere_cuda_gpu_test A.*:B.*", "test companions_cuda_gpu_test A.*:B.*"])
        self.assertEqual(self.run_script("tests", "--filter", "nothing")[0], 1)

    # --- compute-sanitizer ------------------------------------------------------------------------------------------------

    def test_leaves_captures_out_where_libtorch_has_no_cache(self):
        self.built(sphere_cuda_gpu_test=f'echo "cached: $PYTORCH_NO_CUDA_MEMORY_CACHING" >> {self.calls}\n{PASSES}')
        code, output = self.run_script("sanitizer", "--filter", "sphere")
        self.assertEqual(code, 0, output)
        calls = {re.search(r"--tool (\w+)", line)[1]: line for line in self.called("compute-sanitizer")}
        self.assertEqual(list(calls), ["memcheck", "racecheck", "initcheck", "synccheck"])
        for tool, line in calls.items():
            self.assertEqual("CapturedStep" in line, tool in ("memcheck", "initcheck"), line)
            self.assertEqual("--kernel-name kns=lawn" in line, tool != "initcheck", line)
            self.assertIn("CudaStream.StepReturnsWhileTheDeviceIsBusy", line)
        self.assertEqual(self.called("cached:"), ["cached: 1", "cached: ", "cached: 1", "cached: "])
        self.assertEqual(self.rows()["memcheck sphere_cuda_gpu_test"], "passed, error summary: 0 errors")

    def test_runs_chosen_tools_and_adds_to_a_filter_of_tests(self):
        self.built()
        self.run_script("sanitizer", "--tools", "racecheck", "--filter", "sphere")
        (line,) = self.called("compute-sanitizer")
        self.assertIn("--gtest_filter=*sphe*.*-CudaStream.", line)
        self.calls.write_text("")
        self.run_script("sanitizer", "--tools", "racecheck", "--filter", "sphere:A.*-A.B")
        (line,) = self.called("compute-sanitizer")
        self.assertIn("--gtest_filter=A.*-A.B:CudaStream.", line)

    def test_passes_a_program_all_of_whose_tests_a_tool_leaves_out(self):
        self.built(sphere_cuda_gpu_test='echo "[==========] Running 0 tests from 0 test suites."; echo "no test ran"; exit 77')
        self.stub("bin/compute-sanitizer", 'while [ "${1#/}" = "$1" ]; do shift; done; "$@"; '
                                           'echo "========= Error: Target application terminated"; exit 255')
        code, output = self.run_script("sanitizer", "--filter", "sphere", "--tools", "memcheck")
        self.assertEqual(code, 0, output)
        self.assertEqual(self.rows(), {"memcheck sphere_cuda_gpu_test": "passed, it has no test for this tool"})

    def test_takes_a_tool_without_a_summary_for_failed(self):
        self.built()
        self.stub("bin/compute-sanitizer", "exit 0")
        self.assertEqual(self.run_script("sanitizer", "--tools", "memcheck", "--filter", "sphere")[0], 1)
        self.assertEqual(list(self.rows().values()), ["failed: the tool has printed no summary"])

    def test_every_test_that_captures_a_graph_is_in_the_list(self):
        captures, headers = set(), []
        for path in sorted((ROOT / "tests").rglob("*")):
            text = path.read_text() if path.suffix in (".cpp", ".h") else ""
            if "capture_begin" not in text:
                continue
            if path.suffix == ".h" or not path.name.endswith("_gpu_test.cpp"):
                headers.append(path.name)
            captures |= capturing_tests(text)
        self.assertEqual(headers, [], "this test looks for captures in ..._gpu_test.cpp alone")
        self.assertEqual(captures, set(gpu.CAPTURES))

    def test_leaves_out_tests_that_there_are(self):
        sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("*_gpu_test.cpp"))
        for name in gpu.NOT_WHERE_LAUNCHES_WAIT + gpu.LONG + gpu.NOT_FOLLOWED:
            suite, test = name.replace("*", "").split(".")
            self.assertRegex(sources, rf"TEST(_[FP])?\(\w*{suite}, {test}\)")

    # --- benchmarks, training, evidence -----------------------------------------------------------------------------------

    def test_trains_stops_and_resumes(self):
        self.built()
        code, output = self.run_script("train")
        self.assertEqual(code, 0, output)
        self.assertEqual(self.rows(), {"train": "passed, weights abc"})
        whole, stopped, resumed = self.called("cifar10")
        self.assertIn("--lawn --out", whole)
        self.assertIn("--stop-after 5", stopped)
        self.assertRegex(resumed, r"--out (\S+) --resume \1/lawn-adam\.pt")

    def test_fails_where_the_resumed_run_has_other_weights_or_was_not_stopped(self):
        self.built()
        self.assertEqual(self.run_script("train", RESUMED="other")[0], 1)
        self.assertEqual(self.rows()["train"], "failed: weights ['abc', 'other'] instead of twice the same")
        self.assertEqual(self.run_script("train", "--again", STOPS_WITH="0")[0], 1)
        self.assertEqual(self.rows()["train"], "failed: stopped, it ended with 0 instead of 130")

    def test_fails_where_the_benchmarks_are_not_built(self):
        self.built()
        code, output = self.run_script("benchmarks")
        self.assertEqual(code, 1)
        self.assertIn("build step_bench there", output)
        self.assertEqual(self.rows(), {name: "failed (1)" for name in BENCHMARKS})


def capturing_tests(text):
    """The tests in a source file that call capture_begin, themselves or by a function of that file, as Suite.Name."""
    parts = re.split(r"^(TEST(?:_F|_P)?\(\w+, \w+\)|TYPED_TEST\(\w+, \w+\)) \{$(.*?)^\}$", text, flags=re.MULTILINE | re.DOTALL)
    helpers = {"capture_begin"}
    for between in parts[::3]:
        for body in re.finditer(r"^( *)[\w:<>&*\[\] ]*?(\w+)\([^;{]*\)[^;{]*\{\n(.*?)^\1\}$", between, re.MULTILINE | re.DOTALL):
            if "capture_begin" in body[3]:
                helpers.add(body[2])
    found = set()
    for head, body in zip(parts[1::3], parts[2::3]):
        if any(re.search(rf"\b{helper}\b", body) for helper in helpers):
            found.add(".".join(re.findall(r"\w+", head)[1:]))
    return found


if __name__ == "__main__":
    unittest.main()
