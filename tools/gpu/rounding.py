"""How far a model's outputs move if nothing but its weights and inputs is rounded to a precision.

A detector that sees noise answers with probabilities of 1e-6, and a decoder's logits may nearly cancel: there rounding moves an output further than
the tolerance of a precision, whoever computes it. What this module finds is the scale of that.
"""
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

# Bits of a binary32 that are dropped.
DROPPED = {"tf32": 13, "bf16": 16}
PRECISIONS = ("tf32", "fp16", "bf16")


def rounded(values: np.ndarray, precision: str) -> np.ndarray:
    """Binary32 values with the mantissa of a precision, ties to even."""
    shape = np.shape(values)  # ascontiguousarray gives a scalar an axis
    values = np.ascontiguousarray(values, np.float32)
    if precision == "fp16":
        most = np.finfo(np.float16).max
        return np.clip(values, -most, most).astype(np.float16).astype(np.float32).reshape(shape)
    bits, drop = values.view(np.uint32).astype(np.uint64), DROPPED[precision]
    bits = (bits + (1 << drop - 1) - 1 + (bits >> drop & 1)) >> drop << drop
    return bits.astype(np.uint32).view(np.float32).reshape(shape)


def constants(graph: onnx.GraphProto):
    """All constants of a graph and of those inside it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == onnx.AttributeProto.GRAPH:
                yield from constants(attribute.g)


def session(path: pathlib.Path, precision: str, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    """The model with rounded factors: constants of two axes or more. It computes in binary32."""
    model = onnx.load(path)
    for tensor in constants(model.graph):
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) >= 2:
            tensor.CopyFrom(numpy_helper.from_array(rounded(numpy_helper.to_array(tensor), precision), tensor.name))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def moved(path: pathlib.Path, feeds: list[dict], outputs: list[list[np.ndarray]], options: onnxruntime.SessionOptions) -> list[dict[str, list[float]]]:
    """For each feed, by precision: ||rounded - exact|| / ||exact|| of each output; 0 for integers."""
    found = [{} for _ in feeds]
    for precision in PRECISIONS:
        model = session(path, precision, options)
        for feed, exact, entry in zip(feeds, outputs, found):
            inputs = {name: rounded(value, precision) if value.dtype == np.float32 else value for name, value in feed.items()}
            entry[precision] = [distance(a, b) for a, b in zip(model.run(None, inputs), exact)]
    return found


def distance(ours: np.ndarray, wanted: np.ndarray) -> float:
    if wanted.dtype.kind != "f":
        return 0.0
    norm = float(np.linalg.norm(wanted.ravel()))
    return float(np.linalg.norm((ours - wanted).ravel())) / norm if norm else 0.0
