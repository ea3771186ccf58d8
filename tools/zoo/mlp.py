#!/usr/bin/env python3
"""Writes multilayer perceptrons as ONNX.

  mlp     784-512-512-10 with ReLU, seeded random weights
  dlrm    26 embedding tables, pairwise interactions and a dense tower (Naumov et al., 2019), seeded random weights
  skills  the trained 384-256-128-64-1 classifier of the skill-extractor package (--weights mlp.json)
"""
import argparse
import base64
import json
import pathlib

import numpy as np

from network import Network


def tower(net: Network, x: str, layers, out: str, last: str | None) -> str:
    """Gemm layers given as (weight [out, in], bias) with ReLU between them."""
    for index, (weight, bias) in enumerate(layers):
        final = index == len(layers) - 1
        operands = net.weight(f"{out}.{index}.weight", weight), net.weight(f"{out}.{index}.bias", bias)
        x = net.op("Gemm", x, *operands, transB=1, out=out if final and not last else None)
        if not final:
            x = net.op("Relu", x)
    return net.op(last, x, out=out) if last else x


def random_layers(random, *widths):
    return [((random.standard_normal((columns, rows)) * np.sqrt(2 / rows)).astype(np.float32),
             (0.1 * random.standard_normal(columns)).astype(np.float32)) for rows, columns in zip(widths, widths[1:])]


def mlp(net, args):
    tower(net, "input", random_layers(np.random.default_rng(args.seed), 784, 512, 512, 10), "logits", None)
    return {"input": (np.float32, ["batch", 784])}, {"logits": (np.float32, ["batch", 10])}


def dlrm(net, args):
    random, fields, rows, width = np.random.default_rng(args.seed), 26, 10_000, 16
    dense = tower(net, "dense", random_layers(random, 13, 64, width), "bottom", None)
    features = [net.op("Unsqueeze", dense, net.ints(1))]
    for field in range(fields):
        table = net.weight(f"table.{field}", (0.1 * random.standard_normal((rows, width))).astype(np.float32))
        ids = net.op("Gather", "sparse", net.ints(field), axis=1)
        features.append(net.op("Gather", table, ids))
    x = net.op("Concat", *features, axis=1)
    products = net.op("MatMul", x, net.op("Transpose", x, perm=[0, 2, 1]))
    upper = np.array([row * (fields + 1) + column for row in range(fields + 1) for column in range(row)])
    pairs = net.op("Gather", net.op("Flatten", products, axis=1), net.constant(upper, np.int64), axis=1)
    tower(net, net.op("Concat", dense, pairs, axis=1), random_layers(random, width + len(upper), 256, 64, 1), "click", "Sigmoid")
    return {"dense": (np.float32, ["batch", 13]), "sparse": (np.int64, ["batch", fields])}, {"click": (np.float32, ["batch", 1])}


def skills(net, args):
    def floats(text):
        return np.frombuffer(base64.b64decode(text), np.float32)
    spec = json.loads(pathlib.Path(args.weights).read_text())
    layers = [(floats(layer["weights_b64"]).reshape(layer["shape"]), floats(layer["bias_b64"])) for layer in spec["layers"]]
    if layers[0][0].shape[0] == 384:
        layers = [(weight.T, bias) for weight, bias in layers]
    tower(net, "embedding", layers, "probability", "Sigmoid")
    return {"embedding": (np.float32, ["batch", 384])}, {"probability": (np.float32, ["batch", 1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("mlp", "dlrm", "skills"))
    parser.add_argument("out")
    parser.add_argument("--weights")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    net = Network()
    net.save(args.out, *{"mlp": mlp, "dlrm": dlrm, "skills": skills}[args.kind](net, args))


if __name__ == "__main__":
    main()
