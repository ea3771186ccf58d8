#!/usr/bin/env python3
"""Compares streaminfer with ONNX Runtime on real and generated models, seeded random inputs, several shapes each.

    parity.py STREAMINFER MODELS [MODEL ...]

Floats must agree to a relative L2 error of 1e-4, integers exactly. Where the relative error is larger, floats may differ by
2^-22 in no element: ONNX Runtime computes Sigmoid to an absolute, not to a relative error, and where a detector sees
nothing but probabilities of 1e-6 it differs by 3 % from itself without optimisation. Such cases are marked "abs".
Prints one line a case; exits with 1 if any fails.
"""
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime

from cases import CASES

TOLERANCE = 1e-4
SATURATED = 2.0 ** -22


def run(program: str, model: pathlib.Path, feed: dict, folder: str) -> dict[str, np.ndarray]:
    """Outputs of the command line for one feed."""
    inputs, outputs = f"{folder}/in.npz", f"{folder}/out.npz"
    np.savez(inputs, **feed)
    done = subprocess.run([program, "run", model, "--inputs", inputs, "--outputs", outputs], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return dict(np.load(outputs))


def difference(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Relative L2 error and largest difference of an element; infinite where integers, shapes or finiteness differ."""
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return np.inf, np.inf
    if theirs.dtype.kind != "f":
        return (0.0, 0.0) if np.array_equal(ours, theirs) else (np.inf, np.inf)
    finite = np.isfinite(theirs)
    if not np.array_equal(np.isfinite(ours), finite):
        return np.inf, np.inf
    ours, theirs = ours[finite].astype(np.float64), theirs[finite].astype(np.float64)
    gap = ours - theirs
    return float(np.linalg.norm(gap) / max(np.linalg.norm(theirs), 1e-30)), float(np.abs(gap).max(initial=0))


def judge(ours: dict, theirs: dict) -> tuple[bool, str]:
    """Whether all outputs agree, and the worst relative error in words."""
    gaps = [difference(ours[name], value) for name, value in theirs.items()]
    good = all(relative <= TOLERANCE or absolute <= SATURATED for relative, absolute in gaps)
    relative, absolute = max(gaps)
    return good, f"{relative:.1e}" + (f" (abs {absolute:.1e})" if good and relative > TOLERANCE else "")


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
                expected = dict(zip((port.name for port in session.get_outputs()), session.run(None, feed)))
                try:
                    good, verdict = judge(run(program, path, feed, scratch), expected)
                except (RuntimeError, KeyError) as error:
                    good, verdict = False, str(error)
                passed, failed = passed + good, failed + (not good)
                print(f"{'ok  ' if good else 'FAIL'} {case.model:24} {'x'.join(map(str, next(iter(shape.values())))):14} {verdict}", flush=True)
    print(f"parity: {passed} passed, {failed} failed")
    sys.exit(failed > 0 or passed == 0)


if __name__ == "__main__":
    main()
