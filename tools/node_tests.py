#!/usr/bin/env python3
"""Writes ONNX's own node tests as files, for a program that runs them all in one process (tests/gpu).

    node_tests.py OUT TABLE

The cases are those that conformance.py selects from the pinned `onnx` package. OUT gets a folder a case, with `model.onnx`,
`input_N.npy` and `output_N.npy`, and `cases.tsv`: name, relative tolerance, absolute tolerance, and `fails` for those that
TABLE (docs/conformance.md) lists as failures.
"""
import pathlib
import re
import sys

import numpy as np

from conformance import as_array, collect


def write(folder: pathlib.Path, case, model) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    given, expected = case.data_sets[0]
    for stem, values in (("input", given), ("output", expected)):
        for index, value in enumerate(values):
            np.save(folder / f"{stem}_{index}.npy", np.asarray(as_array(value), order="C"))


def write_all(out: pathlib.Path, table: pathlib.Path, chosen: list) -> None:
    known = set(re.findall(r"^\| (test_\w+) \|", table.read_text(), re.MULTILINE))
    lines = []
    for case, model in chosen:
        write(out / case.name, case, model)
        lines.append("\t".join([case.name, str(case.rtol), str(case.atol), *(["fails"] if case.name in known else [])]))
    (out / "cases.tsv").write_text("\n".join(lines) + "\n")
    print(f"node tests: {len(lines)} cases")


def main() -> None:
    write_all(*map(pathlib.Path, sys.argv[1:]), collect()[0])


if __name__ == "__main__":
    main()
