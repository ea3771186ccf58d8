#!/usr/bin/env python3
"""Runs ONNX's own node tests through streaminfer and checks the committed table of failures.

    conformance.py STREAMINFER TABLE [--write] [--only TEST ...]

The cases are those of the pinned `onnx` package. Selected are all that use only operators and types of this library at
operator sets 7 to 21; a case stamped with another set gets the nearest of these instead where every node is valid there.
Floats must agree within the case's own tolerances, everything else exactly. The exit status is 1 if fewer than 95 % pass
or if the failures are not those that TABLE lists; --write rewrites TABLE.
"""
import argparse
import collections
import concurrent.futures
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

OPSETS = range(7, 22)
SHARE = 0.95
OPERATORS = set(
    """
    Add And ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv ConvInteger
    ConvTranspose Cos CumSum DequantizeLinear Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp Expand Flatten
    Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual
    GroupNormalization HardSigmoid HardSwish Identity If InstanceNormalization IsNaN LSTM LayerNormalization LeakyRelu
    Less LessOrEqual Log LogSoftmax MatMul MatMulInteger Max MaxPool Mean Min Mod Mul Neg Not OneHot Or PRelu Pad Pow
    QuantizeLinear RMSNormalization Range Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu
    Reshape Resize Round ScatterND Selu Shape Sigmoid Sign Sin Size Slice Softmax Softplus Split Sqrt Squeeze Sub Sum
    Tanh Tile TopK Transpose Trilu Unsqueeze Where Xor Scaler
    """.split()
)
TYPES = {
    getattr(TensorProto, name)
    for name in ("FLOAT", "FLOAT16", "BFLOAT16", "INT64", "INT32", "INT8", "UINT8", "BOOL")
}
# Failures that are decisions.
REASONS = {
    f"test_resize_downsample_scales_{mode}_align_corners": "the case takes 4 * 0.6 = 2.4 for the length resized; "
    "the specification's text and ONNX Runtime take the whole length 2"
    for mode in ("linear", "cubic")
}


class Excluded(Exception):
    """The case is outside what the library promises; the text says in which way."""


def nodes_of(graph: onnx.GraphProto):
    """All nodes, those of subgraphs included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes_of(attribute.g)


def restamped(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model, stamped with the nearest supported operator set if every node is valid and means the same there."""
    version = next((entry.version for entry in model.opset_import if entry.domain == ""), OPSETS[-1])
    nearest = min(max(version, OPSETS[0]), OPSETS[-1])
    if nearest == version:
        return model
    other = onnx.ModelProto()
    other.CopyFrom(model)
    for entry in other.opset_import:
        if entry.domain == "":
            entry.version = nearest
    for node in nodes_of(other.graph):
        if node.domain != "":
            continue
        if not onnx.defs.has(node.op_type, nearest, ""):
            raise Excluded(f"operator newer than set {nearest}")
        if onnx.defs.get_schema(node.op_type, nearest).since_version > max(version, OPSETS[0]):
            raise Excluded(f"operator changed before set {nearest}")
    try:
        onnx.checker.check_model(other, full_check=True)
    except Exception as error:
        raise Excluded(f"invalid in operator set {nearest}") from error
    return other


def check_types(model: onnx.ModelProto) -> None:
    """Refuses types outside the library's, also between the nodes and as targets of casts."""
    inferred = onnx.shape_inference.infer_shapes(model)
    for value in [*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info]:
        kind = value.type.WhichOneof("value")
        if kind != "tensor_type":
            raise Excluded(f"type {(kind or 'none').removesuffix('_type')}")
        check_type(value.type.tensor_type.elem_type)
    for initializer in inferred.graph.initializer:
        check_type(initializer.data_type)
    for node in nodes_of(model.graph):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                check_type(attribute.t.data_type)
            if attribute.name in ("to", "output_dtype") and attribute.i:
                check_type(attribute.i)
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            raise Excluded("type bfloat16 at the border, which .npz files cannot hold")


def check_type(code: int) -> None:
    if code not in TYPES and code != TensorProto.UNDEFINED:
        raise Excluded(f"type {TensorProto.DataType.Name(code).lower()}")


def selected(case) -> onnx.ModelProto:
    """The model to run, or `Excluded`."""
    for node in nodes_of(case.model.graph):
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx", "ai.onnx.ml"):
            raise Excluded("operator outside the list")
    check_types(case.model)
    if case.name.startswith("test_training_dropout") and "zero_ratio" not in case.name:
        raise Excluded("random result")
    return restamped(case.model)


def as_array(value) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def complaint(program: str, model: onnx.ModelProto, case, folder: str) -> str | None:
    """What is wrong with the program's answer; nothing if it is right."""
    stem = pathlib.Path(folder) / case.name
    path, inputs, outputs = (stem.with_suffix(suffix) for suffix in (".onnx", ".in.npz", ".out.npz"))
    path.write_bytes(model.SerializeToString())
    given, expected = case.data_sets[0]
    names = [value.name for value in model.graph.input]
    np.savez(inputs, **{name: as_array(value) for name, value in zip(names, given)})
    command = [program, "run", path, "--inputs", inputs, "--outputs", outputs, "--device", "host", "--threads", "1"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return "does not end"
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    with np.load(outputs) as results:
        for value, wanted in zip(model.graph.output, expected):
            wrong = difference(results.get(value.name), as_array(wanted), case)
            if wrong:
                return f"{value.name}: {wrong}"
    return None


def difference(ours: np.ndarray | None, wanted: np.ndarray, case) -> str | None:
    """How a result differs from the wanted one beyond tolerance."""
    if ours is None:
        return "missing"
    if ours.dtype != wanted.dtype or ours.shape != wanted.shape:
        return f"{ours.dtype}{list(ours.shape)} instead of {wanted.dtype}{list(wanted.shape)}"
    if wanted.dtype.kind != "f":
        return None if np.array_equal(ours, wanted) else f"{np.count_nonzero(ours != wanted)} of {wanted.size} elements differ"
    ours, wanted = ours.astype(np.float64), wanted.astype(np.float64)
    wrong = ~np.isclose(ours, wanted, rtol=case.rtol, atol=case.atol, equal_nan=True)
    if not wrong.any():
        return None
    return f"{np.count_nonzero(wrong)} of {wrong.size} elements differ, by up to {np.nanmax(np.abs(ours - wanted)):.3g}"


def collect() -> tuple[list, collections.Counter]:
    """The selected cases with their models, and why others are left out."""
    # The package computes its expected values while it is imported, overflows included.
    warnings.filterwarnings("ignore")
    from onnx.backend.test.case.node import collect_testcases

    chosen, excluded = [], collections.Counter()
    for case in sorted(collect_testcases(None), key=lambda case: case.name):
        try:
            chosen.append((case, selected(case)))
        except Excluded as reason:
            excluded[str(reason)] += 1
    return chosen, excluded


def table(passed: int, failures: dict[str, str], excluded: collections.Counter, restamped_count: int) -> str:
    """The page to commit."""
    total = passed + len(failures)
    lines = [
        "# ONNX node tests",
        "",
        f"Made by `make conformance` from the cases of onnx {onnx.__version__}: {total} use only operators and types of this",
        f"library at operator sets {OPSETS[0]} to {OPSETS[-1]} ({restamped_count} of them stamped with another set although they are valid in these);",
        f"**{passed} pass, {len(failures)} fail ({100 * passed / max(total, 1):.1f} %)**.",
        "",
        "| failure | reason |",
        "|---|---|",
        *(f"| {name} | {reason} |" for name, reason in sorted(failures.items())),
        "",
        "Left out:",
        "",
        "| cases | because of |",
        "|---|---|",
        *(f"| {count} | {reason} |" for reason, count in excluded.most_common()),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("table", type=pathlib.Path)
    parser.add_argument("--write", action="store_true", help="rewrite the table")
    parser.add_argument("--only", nargs="*", help="run only these tests and leave the table alone")
    options = parser.parse_args()
    chosen, excluded = collect()
    if options.only:
        chosen = [(case, model) for case, model in chosen if case.name in options.only]
    restamped_count = sum(model is not case.model for case, model in chosen)
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(2) as pool:
        complaints = list(pool.map(lambda pair: complaint(options.program, pair[1], pair[0], folder), chosen))
    failures = {case.name: reason.replace("|", "/") for (case, _), reason in zip(chosen, complaints) if reason}
    failures |= {name: f"{REASONS[name]} ({reason})" for name, reason in failures.items() if name in REASONS}
    passed = len(chosen) - len(failures)
    for name, reason in failures.items():
        print(f"FAIL {name}: {reason}")
    print(f"conformance: {passed} of {len(chosen)} pass, {sum(excluded.values())} left out")
    for reason, count in excluded.most_common():
        print(f"  {count:5} {reason}")
    if options.only:
        sys.exit(bool(failures))
    if options.write:
        options.table.write_text(table(passed, failures, excluded, restamped_count))
    known = set(re.findall(r"^\| (test_\w+) \|", options.table.read_text(), re.MULTILINE)) if options.table.exists() else set()
    for name in sorted(known ^ set(failures)):
        print(f"{'fails, but is not' if name in failures else 'passes, but is'} listed in {options.table}: {name}")
    sys.exit(known != set(failures) or passed < SHARE * len(chosen))


if __name__ == "__main__":
    main()
