#!/usr/bin/env python3
"""Compares streaminfer with ONNX Runtime on real and generated models, seeded random inputs, several shapes each.

    parity.py STREAMINFER MODELS [MODEL ...]

Floats must agree to a relative L2 error of 1e-4, or element by element to 2^-23 (the spacing of float32 at 1: ONNX Runtime
computes Sigmoid to no better than that, which is 1e-3 of a small probability), integers exactly. Prints one line a
case; exits with 1 if any fails.
"""
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime

from cases import CASES

TOLERANCE = 1e-4
SPACING = 2.0 ** -23


def run(program: str, model: pathlib.Path, feed: dict, folder: str) -> dict[str, np.ndarray]:
    """Outputs of the command line for one feed."""
    inputs, outputs = f"{folder}/in.npz", f"{folder}/out.npz"
    np.savez(inputs, **feed)
    done = subprocess.run([program, "run", model, "--inputs", inputs, "--outputs", outputs], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return dict(np.load(outputs))


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Relative L2 error, 0 if no element is further off than SPACING; infinite where integers, shapes or finiteness differ."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return np.inf
    if theirs.dtype.kind != "f":
        return 0.0 if np.array_equal(ours, theirs) else np.inf
    if not np.array_equal(np.isfinite(ours), np.isfinite(theirs)):
        return np.inf
    gap = np.where(np.isfinite(theirs), ours, 0).astype(np.float64).ravel() - np.where(np.isfinite(theirs), theirs, 0).ravel()
    if np.abs(gap).max(initial=0) <= SPACING:
        return 0.0
    return float(np.linalg.norm(gap) / max(np.linalg.norm(theirs[np.isfinite(theirs)].astype(np.float64).ravel()), 1e-30))


def main() -> None:
    program, folder, wanted = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 2
    passed = failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for case in (case for case in CASES if not wanted or case.model in wanted):
            path = folder / f"{case.model}.onnx"
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            for seed, shape in enumerate(case.shapes):
                feed = case.feed(session, shape, seed)
                expected = session.run(None, feed)
                try:
                    ours = run(program, path, feed, scratch)
                    worst = max(difference(ours[port.name], value) for port, value in zip(session.get_outputs(), expected))
                    verdict = f"{worst:.1e}"
                except (RuntimeError, KeyError) as error:
                    worst, verdict = np.inf, str(error)
                good = worst <= TOLERANCE
                passed, failed = passed + good, failed + (not good)
                print(f"{'ok  ' if good else 'FAIL'} {case.model:24} {'x'.join(map(str, next(iter(shape.values())))):14} {verdict}", flush=True)
    print(f"parity: {passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


if __name__ == "__main__":
    main()
