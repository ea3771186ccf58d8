#!/usr/bin/env python3
"""Writes a BERT encoder as ONNX: random weights, or the real all-MiniLM-L6-v2.

Three styles, node for node what one meets in the wild:
  torchscript  torch.onnx.export: shapes recomputed through Shape/Gather/Unsqueeze/Concat for every Reshape, scores
               divided by sqrt(d), additive mask (1 - m) * float32 lowest
  dynamo       the torch 2 exporter: q and k both scaled by d^-1/4, k transposed through a three-dimensional Reshape, a
               boolean mask through Range/GatherND/And, softmax guarded by IsNaN
  simplified   constant Reshape shapes, no shape arithmetic
"""
import argparse
import json
import pathlib

import numpy as np

from network import FLOAT, Network

LOWEST = float(np.finfo(np.float32).min)
END = np.iinfo(np.int64).max


def read_safetensors(path: str) -> dict[str, np.ndarray]:
    """The float32 tensors of a safetensors file, under their names without a leading `bert.`."""
    data = pathlib.Path(path).read_bytes()
    base = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:base])
    header.pop("__metadata__", None)
    return {name.removeprefix("bert."): np.frombuffer(data[base + h["data_offsets"][0]:base + h["data_offsets"][1]], np.float32)
            .reshape(h["shape"]) for name, h in header.items() if h["dtype"] == "F32"}


class Weights:
    """Trained weights by Hugging Face name, or seeded random ones of the same shapes."""

    def __init__(self, path: str | None, seed: int):
        self.trained = read_safetensors(path) if path else None
        self.random = np.random.default_rng(seed)

    def __call__(self, name: str, *shape: int, mean: float = 0.0) -> np.ndarray:
        if self.trained is None:
            return (mean + 0.02 * self.random.standard_normal(shape)).astype(np.float32)
        tensor = self.trained[name]
        assert tensor.shape == shape, (name, tensor.shape, shape)
        return tensor


class Encoder:
    """The layers, written with the idioms of one exporter; a subclass per style."""

    def __init__(self, args):
        self.args, self.net, self.weights = args, Network(args.opset), Weights(args.weights, args.seed)
        self.size = args.hidden // args.heads

    def linear(self, x, name, rows, columns):
        weight = self.net.weight(f"{name}.kernel", self.weights(f"{name}.weight", columns, rows).T)
        bias = self.net.weight(f"{name}.bias", self.weights(f"{name}.bias", columns))
        return self.net.op("Add", bias, self.net.op("MatMul", x, weight))

    def norm(self, x, name, out=None):
        hidden = self.args.hidden
        scale = self.net.weight(f"{name}.weight", self.weights(f"{name}.weight", hidden, mean=1.0))
        bias = self.net.weight(f"{name}.bias", self.weights(f"{name}.bias", hidden))
        return self.net.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=1e-12, out=out)

    def embeddings(self):
        net, args = self.net, self.args
        tables = [net.weight(f"embeddings.{kind}.weight", self.weights(f"embeddings.{kind}.weight", rows, args.hidden))
                  for kind, rows in (("word_embeddings", args.vocab), ("token_type_embeddings", 2), ("position_embeddings", args.positions))]
        x = net.op("Add", net.op("Gather", tables[0], "input_ids"), net.op("Gather", tables[1], "token_type_ids"))
        x = net.op("Add", x, net.op("Gather", tables[2], self.position_ids()))
        return self.norm(x, "embeddings.LayerNorm")

    def gelu(self, x):
        net = self.net
        erf = net.op("Erf", net.op("Div", x, net.constant(np.sqrt(2))))
        return net.op("Mul", net.op("Mul", x, net.op("Add", erf, net.constant(1))), net.constant(0.5))

    def layer(self, x, index, out):
        net, hidden, inner = self.net, self.args.hidden, self.args.intermediate
        name = f"encoder.layer.{index}"
        q, k, v = (self.linear(x, f"{name}.attention.self.{part}", hidden, hidden) for part in ("query", "key", "value"))
        attended = self.linear(self.attend(q, k, v), f"{name}.attention.output.dense", hidden, hidden)
        x = self.norm(net.op("Add", attended, x), f"{name}.attention.output.LayerNorm")
        h = self.gelu(self.linear(x, f"{name}.intermediate.dense", hidden, inner))
        h = self.linear(h, f"{name}.output.dense", inner, hidden)
        return self.norm(net.op("Add", h, x), f"{name}.output.LayerNorm", out)

    def positions(self):
        return np.arange(self.args.positions, dtype=np.int64)[None]


class TorchScript(Encoder):
    """torch.onnx.export with eager attention."""

    def extent(self, x, axis):
        return self.net.op("Unsqueeze", self.net.op("Gather", self.net.op("Shape", x), self.net.constant(axis, np.int64), axis=0), self.net.ints(0))

    def position_ids(self):
        net = self.net
        return net.op("Slice", net.constant(self.positions(), np.int64), net.ints(0), self.extent("input_ids", 1), net.ints(1), net.ints(1))

    def mask(self):
        net = self.net
        kept = net.op("Cast", net.op("Unsqueeze", net.op("Unsqueeze", "attention_mask", net.ints(1)), net.ints(2)), to=FLOAT)
        self.bias = net.op("Mul", net.op("Sub", net.constant(1), kept), net.constant(LOWEST))

    def split(self, x, order):
        net = self.net
        shape = net.op("Concat", self.extent(x, 0), self.extent(x, 1), net.ints(self.args.heads), net.ints(self.size), axis=0)
        return net.op("Transpose", net.op("Reshape", x, shape), perm=order)

    def attend(self, q, k, v):
        net = self.net
        scores = net.op("MatMul", self.split(q, [0, 2, 1, 3]), self.split(k, [0, 2, 3, 1]))
        scores = net.op("Add", net.op("Div", scores, net.constant(np.sqrt(self.size))), self.bias)
        context = net.op("MatMul", net.op("Softmax", scores, axis=-1), self.split(v, [0, 2, 1, 3]))
        context = net.op("Transpose", context, perm=[0, 2, 1, 3])
        shape = net.op("Concat", self.extent(context, 0), self.extent(context, 1), net.ints(self.args.hidden), axis=0)
        return net.op("Reshape", context, shape)


class Dynamo(Encoder):
    """The torch 2 exporter with scaled_dot_product_attention."""

    def position_ids(self):
        net = self.net
        self.batch, self.length = (net.op("Shape", "token_type_ids", start=axis, end=axis + 1) for axis in (0, 1))
        ids = net.weight("embeddings.position_ids", self.positions())
        return net.op("Slice", ids, net.ints(0), self.length, net.ints(1), net.ints(1))

    def mask(self):
        net = self.net
        zero, one = net.constant(0, np.int64), net.constant(1, np.int64)
        rows = net.op("Unsqueeze", net.op("Range", zero, net.op("Squeeze", self.batch), one), net.ints(1, 2, 3))
        keys = net.op("Unsqueeze", net.op("Range", zero, net.op("Squeeze", self.length), one), net.ints(0, 1, 2))
        shape = net.op("Shape", net.op("Max", rows, keys))
        index = net.op("Concat", *(net.op("Unsqueeze", net.op("Expand", part, shape), net.ints(-1)) for part in (rows, keys)), axis=-1)
        kept = net.op("And", net.op("GreaterOrEqual", keys, zero), net.op("GatherND", net.op("Cast", "attention_mask", to=9), index))
        self.bias = net.op("Where", kept, net.constant(0), net.constant(-np.inf))
        self.heads = net.op("Concat", self.batch, self.length, net.ints(-1), net.ints(self.size), axis=0)
        self.rows = net.op("Concat", self.batch, self.length, net.ints(-1), axis=0)

    def split(self, x):
        return self.net.op("Transpose", self.net.op("Reshape", x, self.heads, allowzero=1), perm=[0, 2, 1, 3])

    def keys(self, k):
        net = self.net
        shape = net.op("Shape", k)
        outer, rows, columns = (net.op("Slice", shape, net.ints(start), net.ints(end)) for start, end in ((0, -2), (-2, -1), (-1, END)))
        flat = net.op("Reshape", k, net.op("Concat", net.ints(-1), rows, columns, axis=0), allowzero=0)
        return net.op("Reshape", net.op("Transpose", flat, perm=[0, 2, 1]), net.op("Concat", outer, columns, rows, axis=0), allowzero=0)

    def attend(self, q, k, v):
        net, scale = self.net, self.net.constant(self.size ** -0.25)
        scores = net.op("MatMul", net.op("Mul", self.split(q), scale), net.op("Mul", self.keys(self.split(k)), scale))
        weights = net.op("Softmax", net.op("Add", scores, self.bias), axis=-1)
        weights = net.op("Where", net.op("IsNaN", weights), net.constant(0), weights)
        context = net.op("Transpose", net.op("MatMul", weights, self.split(v)), perm=[0, 2, 1, 3])
        return net.op("Reshape", context, self.rows, allowzero=1)


class Simplified(TorchScript):
    """What a graph simplifier leaves of the TorchScript form."""

    def position_ids(self):
        net = self.net
        length = net.op("Shape", "input_ids", start=1, end=2)
        return net.op("Slice", net.weight("position_ids", self.positions()), net.ints(0), length, net.ints(1))

    def split(self, x, order):
        shape = self.net.ints(0, 0, self.args.heads, self.size)
        return self.net.op("Transpose", self.net.op("Reshape", x, shape), perm=order)

    def extent(self, x, axis):
        return self.net.ints(0)


STYLES = {"torchscript": TorchScript, "dynamo": Dynamo, "simplified": Simplified}


def pooled(net: Network, x: str) -> str:
    """The mean of the unmasked rows, scaled to length 1."""
    mask = net.op("Expand", net.op("Cast", net.op("Unsqueeze", "attention_mask", net.ints(-1)), to=FLOAT), net.op("Shape", x))
    total = net.op("ReduceSum", net.op("Mul", x, mask), net.ints(1), keepdims=0)
    count = net.op("Clip", net.op("ReduceSum", mask, net.ints(1), keepdims=0), net.constant(1e-9))
    mean = net.op("Div", total, count)
    return net.op("Div", mean, net.op("Clip", net.op("ReduceL2", mean, axes=[1], keepdims=1), net.constant(1e-12)), out="sentence_embedding")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    for name, value in (("layers", 12), ("hidden", 768), ("heads", 12), ("intermediate", 3072), ("vocab", 30522), ("positions", 512), ("opset", 17), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--style", choices=STYLES, default="torchscript")
    parser.add_argument("--weights", help="safetensors file of a BertModel")
    parser.add_argument("--pool", action="store_true", help="add sentence_embedding")
    args = parser.parse_args()
    encoder = STYLES[args.style](args)
    x = encoder.embeddings()
    encoder.mask()
    for index in range(args.layers):
        x = encoder.layer(x, index, "last_hidden_state" if index == args.layers - 1 else None)
    outputs = {"last_hidden_state": (np.float32, ["batch", "sequence", args.hidden])}
    if args.pool:
        pooled(encoder.net, x)
        outputs["sentence_embedding"] = (np.float32, ["batch", args.hidden])
    ids = (np.int64, ["batch", "sequence"])
    encoder.net.save(args.out, dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), ids), outputs)


if __name__ == "__main__":
    main()
