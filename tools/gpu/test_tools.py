"""What can be wrong with the bundle's programs without a GPU.

    python tools/gpu/test_tools.py
"""
import contextlib
import importlib.machinery
import importlib.util
import io
import pathlib
import subprocess
import sys
import tempfile
import types
import unittest

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import launches  # noqa: E402
import rounding  # noqa: E402
import sanitizer  # noqa: E402


def load(name: str) -> types.ModuleType:
    """A program without a suffix, as a module."""
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(HERE / name))
    sys.dont_write_bytecode = True
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def listing(architecture: str, **entries: list[str]) -> str:
    """As cuobjdump -sass prints."""
    lines = ["Fatbin elf code:", f"arch = {architecture}"]
    for name, code in entries.items():
        lines += [f"\t\tFunction : {name}", '\t.headerflags    @"EF_CUDA_SM90"', *(f"        /*{16 * at:04x}*/  {line} ;" for at, line in enumerate(code))]
    return "\n".join(lines) + "\n"


class Launches(unittest.TestCase):
    WAIT, STORE = "ACQBULK", "STG.E.128 desc[UR4][R2.64], R4"

    def test_an_entry_that_waits_before_it_writes_is_right(self):
        text = listing("sm_90a", good=["LDC R1, c[0x0][0x28]", "STS [R2], R3", self.WAIT, self.STORE, "EXIT"])
        self.assertEqual(launches.faults(text), (1, []))

    def test_entries_that_do_not_wait_or_write_first_are_named(self):
        text = listing("sm_90a", hasty=[self.STORE, self.WAIT], adds=["RED.E.ADD.STRONG.GPU desc[UR4][R2.64], R4", self.WAIT],
                       generic=["ST.E desc[UR4][R2.64], R4", self.WAIT], never=["LDG.E R2, desc[UR4][R2.64]", self.STORE],
                       good=[self.WAIT, self.STORE])
        count, found = launches.faults(text)
        self.assertEqual(count, 5)
        self.assertEqual([line.split()[0] for line in found], ["hasty", "adds", "generic", "never"])
        self.assertIn("does not wait", found[-1])
        self.assertIn("sm_90a", found[0])

    def test_older_gpus_need_no_wait_and_newer_ones_do(self):
        code = {"entry": [self.STORE]}
        self.assertEqual(launches.faults(listing("sm_80", **code)), (0, []))
        count, found = launches.faults(listing("sm_80", **code) + listing("sm_120", **code))
        self.assertEqual((count, len(found)), (1, 1))

    def test_images_that_cannot_be_read_or_are_for_older_gpus_are_faults(self):
        with tempfile.TemporaryDirectory() as scratch:
            folder = pathlib.Path(scratch)
            tool = program(folder / "cuobjdump", 'import sys\nif "broken" in sys.argv[2]:\n    sys.exit("no such format")\nprint(open(sys.argv[2]).read())')
            (folder / "a.fatbin").write_text(listing("sm_90a", good=[self.WAIT, self.STORE]))
            (folder / "broken.fatbin").write_text("")
            (folder / "old.fatbin").write_text(listing("sm_80", good=[self.STORE]))
            count, wrong = launches.check(str(tool), folder)
        self.assertEqual(count, 1)
        self.assertEqual([text.split(":")[0] for text in wrong], ["broken.fatbin", "old.fatbin"])
        self.assertIn("no such format", wrong[0])


class Rounding(unittest.TestCase):
    def test_mantissas_are_cut_to_the_nearest_with_ties_to_even(self):
        for precision, bits in (("tf32", 10), ("bf16", 7), ("fp16", 10)):
            unit = 2.0**-bits
            for value, wanted in ((1 + unit / 2, 1), (1 + unit * 1.5, 1 + 2 * unit), (1 + unit * 0.51, 1 + unit), (-1 - unit / 4, -1), (0, 0), (2 - unit / 4, 2)):
                self.assertEqual(rounding.rounded(np.float32(value), precision), np.float32(wanted), f"{value} in {precision}")

    def test_halves_saturate_and_bfloats_keep_their_range(self):
        self.assertEqual(rounding.rounded(np.float32([1e6, -1e6]), "fp16").tolist(), [65504, -65504])
        self.assertLess(abs(rounding.rounded(np.float32([1e30]), "bf16")[0] / 1e30 - 1), 2.0**-8)

    def test_shapes_stay(self):
        for shape in ((), (3,), (2, 0, 4), (2, 3)):
            for precision in rounding.PRECISIONS:
                self.assertEqual(rounding.rounded(np.ones(shape, np.float32), precision).shape, shape)

    def test_distances_are_relative_and_integers_have_none(self):
        self.assertAlmostEqual(rounding.distance(np.float32([3, 4.5]), np.float32([3, 4])), 0.1)
        self.assertEqual(rounding.distance(np.array([1]), np.array([9])), 0)
        self.assertEqual(rounding.distance(np.float32([1]), np.float32([0])), 0)


def ended(name: str, *words: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, HERE / name, *words], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


class Arguments(unittest.TestCase):
    def test_lists_are_what_can_be_chosen(self):
        status, text = ended("run-bench", "--list")
        self.assertEqual((status, text.split()), (0, list(load("run-bench").cells())))
        status, text = ended("run-tests", "--list")
        self.assertEqual(status, 0)
        self.assertEqual(text.split()[-1], "sanitizer")

    def test_unknown_names_are_refused_by_name(self):
        for words, named in ((("run-bench", "--cells", "bert", "nothing"), "nothing"), (("run-tests", "--only", "nothing"), "nothing"),
                             (("run-tests", "--only", "sanitizer", "--tools", "nothing"), "nothing"), (("run-tests", "--resume"), "--resume"),
                             (("run-tests", "--every", "0"), "--every"), (("run-bench", "--budget", "soon"), "soon")):
            status, text = ended(*words)
            self.assertEqual(status, 2, words)
            self.assertIn(named, text.splitlines()[-1], words)


class Peers(unittest.TestCase):
    """Which figure a cell is compared with, and how it is marked."""

    def measured(self, name: str, peer: bool, now: dict) -> dict:
        bench = load("run-bench")
        bench.last_json = lambda command, *_: now if "peer.py" in str(command[1]) else {"p50_us": 1}
        options = types.SimpleNamespace(device="cuda:0", seconds=1)
        return bench.measure(name, bench.cells()[name], pathlib.Path("streaminfer"), {"minilm": "minilm.onnx", "bert-base": "bert.onnx"}, options, {}, peer)

    def test_every_earlier_figure_is_of_a_cell(self):
        bench = load("run-bench")
        self.assertLessEqual(set(bench.EARLIER), set(bench.cells()))
        self.assertTrue(all(figure > 0 for figure in bench.EARLIER.values()))

    def test_a_peer_of_this_run_is_preferred_and_an_earlier_one_is_marked(self):
        self.assertEqual(self.measured("minilm-b1", True, {"p50_us": 7})["peer"], {"p50_us": 7, "measured": "in this run"})
        earlier = self.measured("minilm-b1", False, {})["peer"]
        self.assertEqual(earlier, {"p50_us": 336, "measured": "earlier, on another machine"})
        broken = self.measured("minilm-b1", True, {"error": "no CUDA"})["peer"]
        self.assertEqual(broken, {**earlier, "error": "no CUDA"})
        self.assertNotIn("peer", self.measured("tail-4", True, {"p50_us": 7}))


def program(path: pathlib.Path, body: str) -> pathlib.Path:
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(0o755)
    return path


class Sanitizer(unittest.TestCase):
    """The tool and the test program are stand-ins."""

    CLEAN = 'print("========= ERROR SUMMARY: 0 errors")'
    CHECK = '{"at": "MatMul", "layout": "dense", "precision": "fp16", "number": 1, "of": 2}'
    END = 'print(\'{"group": "entries", "launched": {"copy": 2}, "not_launched": []}\')\nprint(\'{"group": "all", "failed": 0, "left_out": 0}\')'

    def run_tool(self, body: str, tool="memcheck", seconds=20.0, resume=False):
        """What is reported of a tool that prints this; it is given the words behind its own."""
        stand_in = program(self.folder / "compute-sanitizer", f"import sys, time, subprocess\nprint('========= COMPUTE-SANITIZER')\n{body}")
        with contextlib.redirect_stdout(io.StringIO()) as self.printed:
            return sanitizer.run(tool, str(stand_in), self.folder / "tests", 9, self.folder, {}, seconds, resume)

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = pathlib.Path(scratch.name)

    def test_a_clean_run_is_good_and_says_what_it_saw(self):
        is_good, entry, failed = self.run_tool(f"print('{self.CHECK}')\n{self.END}\n{self.CLEAN}")
        self.assertTrue(is_good, entry)
        self.assertEqual((entry["checks"], entry["errors"], entry["entries"], failed), (1, 0, {"copy": 2}, []))
        self.assertIn("MatMul", self.printed.getvalue())

    def test_racecheck_leaves_out_what_does_not_end_and_says_so(self):
        words = 'words = sys.argv\nassert words[words.index("--tool") + 1] == "racecheck", words\n' \
                'assert words[words.index("--skip-groups") + 1] == "concurrent" and "--every" not in words, words\n'
        is_good, entry, _ = self.run_tool(f'{words}{self.END}\nprint("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)")', "racecheck")
        self.assertTrue(is_good, entry)
        self.assertEqual(entry["skipped_groups"], "concurrent")

    def test_errors_are_counted(self):
        found = 'print("========= Invalid __global__ read of size 4 bytes")'
        is_good, entry, _ = self.run_tool(f'{found}\n{self.END}\nprint("========= ERROR SUMMARY: 1 error")\nsys.exit(99)')
        self.assertFalse(is_good)
        self.assertEqual((entry["errors"], entry["findings"][0], entry["status"]), (1, 1, 99))

    def test_what_does_not_come_to_its_end_is_not_good(self):
        for body, word in (
            (f"print('{self.CHECK}', flush=True)\nsubprocess.run(['sleep', '60'])", "the time was up at"),
            (self.END, "no summary"),
            (self.CLEAN, "has not come to its end"),
            (self.END.replace('"left_out": 0', '"left_out": 5') + f"\n{self.CLEAN}", "no time for 5 checks"),
        ):
            is_good, entry, _ = self.run_tool(body, seconds=1.5)
            self.assertFalse(is_good)
            self.assertTrue(any(word in text for text in entry["unfinished"]), entry)

    def test_entries_that_nothing_launches_and_checks_that_fail_are_not_good(self):
        is_good, entry, _ = self.run_tool(self.END.replace("[]", '["gather"]') + f"\n{self.CLEAN}")
        self.assertEqual((is_good, entry["not_launched"]), (False, ["gather"]))
        failure = 'print(\'{"case": "MatMul", "outcome": "failed"}\')'
        is_good, entry, failed = self.run_tool(f"{failure}\n{self.END}\n{self.CLEAN}")
        self.assertEqual((is_good, len(failed)), (False, 1))

    def test_what_was_found_before_a_run_goes_on_stays_found(self):
        found = 'print("========= Error: Race reported between Write access at 0x10 in matmul")'
        self.assertFalse(self.run_tool(f"{found}\nsys.stdout.flush()\ntime.sleep(60)", seconds=1.0)[0])
        is_good, entry, _ = self.run_tool(f"{self.END}\n{self.CLEAN}", resume=True)
        self.assertEqual((is_good, entry["findings"][0]), (False, 1))
        self.assertTrue(self.run_tool(f"{self.END}\n{self.CLEAN}")[0], "a run from the beginning forgets it")


if __name__ == "__main__":
    unittest.main()
