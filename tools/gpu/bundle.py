#!/usr/bin/env python3
"""Gathers what is carried to a machine with a GPU: programs without symbols, cases with expected outputs, generators.

    bundle.py OUT --release target/release --debug target/debug --models .cache/models --go /usr/local/go/bin/go [--images target/images]

The expected outputs of real models are ONNX Runtime's. Models that a seed makes are not carried: their generators are, and need
numpy only.
"""
import argparse
import lzma
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

import numpy as np
import onnxruntime

TOOLS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOOLS))

import rounding  # noqa: E402
from cases import CASES  # noqa: E402
from conformance import collect  # noqa: E402
from node_tests import write_all  # noqa: E402

# Real models that are small enough to be carried.
CARRIED = ("magika", "ppocr-det", "ppocr-rec", "ppocr-cls", "silero", "silero-ifless", "silero-sequence", "skills")
# Shapes of a model that are checked; each costs a load at every precision.
SHAPES = 2
MEGABYTES_MAX = 60
DICTIONARY_BYTES = 1 << 27


def newest(folder: pathlib.Path, stem: str) -> pathlib.Path:
    """The test program that cargo built last."""
    programs = [path for path in folder.glob(f"{stem}-*") if not path.suffix and path.stat().st_mode & 0o100]
    if not programs:
        sys.exit(f"bundle: no {stem} in {folder}: run cargo test --no-run")
    return max(programs, key=lambda path: path.stat().st_mtime)


def strip(source: pathlib.Path, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["strip", "-o", target, source], check=True)


def build_go(go: str, target: pathlib.Path) -> None:
    """The Go suites, and the program that measures tails: without symbols, and without the paths of this machine."""
    root, flags = TOOLS.parent, ("-trimpath", "-ldflags=-s -w", "-o")
    target.mkdir(parents=True, exist_ok=True)
    for folder, words, name in (
        (root / "benches/go", ("build", *flags, target / "tail", "./tail"), "tail"),
        (root / "go", ("test", "-c", *flags, target / "test-go", "."), "test-go"),
        (root / "go", ("test", "-c", *flags, target / "test-go-pipeline", "./pipeline"), "test-go-pipeline"),
    ):
        if subprocess.run([go, *words], cwd=folder).returncode != 0:
            sys.exit(f"bundle: {name} cannot be built in {folder}")


def save(folder: pathlib.Path, stem: str, values) -> None:
    for index, value in enumerate(values):
        np.save(folder / f"{stem}_{index}.npy", np.asarray(value, order="C"))


def write_models(out: pathlib.Path, models: pathlib.Path) -> None:
    """Models with inputs and ONNX Runtime's outputs, the table that the test program reads, and how far rounding alone moves each output."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    out.mkdir(parents=True)
    lines = []
    for model in CARRIED:
        path = models / f"{model}.onnx"
        shutil.copy(path, out)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        shapes = [(case, shape) for case in CASES if case.model == model for shape in case.shapes]
        feeds = [case.feed(session, shape, index) for index, (case, shape) in enumerate(shapes[-SHAPES:])]
        outputs = [session.run(None, feed) for feed in feeds]
        for index, moved in enumerate(rounding.moved(path, feeds, outputs, options)):
            name = f"{model}-{index}"
            folder = out / name
            folder.mkdir()
            save(folder, "input", [feeds[index][port.name] for port in session.get_inputs()])
            save(folder, "output", outputs[index])
            rows = ("\t".join([precision, *map(str, errors)]) for precision, errors in moved.items())
            (folder / "rounding.tsv").write_text("".join(f"{row}\n" for row in rows))
            lines.append(f"{name}\t{model}.onnx\t{name}\n")
    (out / "cases.tsv").write_text("".join(lines))


def pack(out: pathlib.Path, folder: pathlib.Path) -> None:
    """Everything in a folder, under its name. The dictionary spans all programs, each of which has the same kernels."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 1, "dict_size": DICTIONARY_BYTES}]
    with lzma.open(out / f"{folder.name}.tar.xz", "wb", filters=filters) as file, tarfile.open(fileobj=file, mode="w|") as tar:
        tar.add(folder, folder.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--images", type=pathlib.Path, help="the machine code that the programs embed, if they do")
    for folder in ("release", "debug", "models"):
        parser.add_argument(f"--{folder}", type=pathlib.Path, required=True)
    parser.add_argument("--go", default="go", help="the go command")
    options = parser.parse_args()
    out = options.out
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        programs = folder / "programs"
        for name in ("libstreaminfer.so", "streaminfer"):
            strip(options.release / name, programs / name)
        for test in ("gpu", "runtime", "memory", "allocation"):
            strip(newest(options.debug / "deps", test), programs / f"test-{test}")
        build_go(options.go, programs)
        write_all(folder / "node-tests", TOOLS.parent / "docs/conformance.md", collect()[0])
        write_models(folder / "models", options.models)
        names = ["programs", "node-tests", "models"]
        if options.images:
            shutil.copytree(options.images, folder / "images")
            names.append("images")
        for name in names:
            pack(out, folder / name)
    shutil.copytree(TOOLS / "zoo", out / "zoo", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOOLS / "cases.py", out)
    for script in ("zoo_models.py", "launches.py", "sanitizer.py", "run-tests", "run-bench", "peer.py"):
        shutil.copy(TOOLS / "gpu" / script, out)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    print(f"bundle: {out}, {size:.1f} MB")
    if size > MEGABYTES_MAX:
        sys.exit(f"bundle: more than {MEGABYTES_MAX} MB")


if __name__ == "__main__":
    main()
