#!/usr/bin/env python3
"""Writes ResNet-50 v1.5 (He et al., 2015; stride in the 3x3) as ONNX with seeded random weights.

By default batch normalisation is folded into the convolutions, as torch.onnx.export does in evaluation mode; --keep-norm
leaves 53 BatchNormalization nodes.
"""
import argparse

import numpy as np

from network import Network


class ResNet:
    """Writes blocks into a network."""

    def __init__(self, keep_norm: bool, seed: int):
        self.net, self.keep_norm, self.random = Network(), keep_norm, np.random.default_rng(seed)

    def conv(self, x, name, channels, filters, kernel, stride=1, gain=1.0):
        draw = self.random.standard_normal
        weight = draw((filters, channels, kernel, kernel)) * np.sqrt(2.0 / (channels * kernel * kernel))
        gamma, beta, mean = gain * (1 + 0.1 * draw(filters)), 0.1 * draw(filters), 0.1 * draw(filters)
        variance = np.abs(1 + 0.1 * draw(filters))
        window = dict(dilations=[1, 1], group=1, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4, strides=[stride] * 2)
        put = lambda part, value: self.net.weight(f"{name}.{part}", value.astype(np.float32))
        if self.keep_norm:
            x = self.net.op("Conv", x, put("weight", weight), **window)
            statistics = [put(f"bn.{part}", value) for part, value in (("weight", gamma), ("bias", beta), ("mean", mean), ("var", variance))]
            return self.net.op("BatchNormalization", x, *statistics, epsilon=1e-5)
        scale = gamma / np.sqrt(variance + 1e-5)
        return self.net.op("Conv", x, put("weight", weight * scale[:, None, None, None]), put("bias", beta - mean * scale), **window)

    def block(self, x, name, channels, width, stride):
        net = self.net
        y = net.op("Relu", self.conv(x, f"{name}.conv1", channels, width, 1))
        y = net.op("Relu", self.conv(y, f"{name}.conv2", width, width, 3, stride))
        y = self.conv(y, f"{name}.conv3", width, 4 * width, 1, gain=0.3)
        if stride != 1 or channels != 4 * width:
            x = self.conv(x, f"{name}.downsample", channels, 4 * width, 1, stride)
        return net.op("Relu", net.op("Add", y, x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--keep-norm", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    model = ResNet(args.keep_norm, args.seed)
    net = model.net
    x = net.op("Relu", model.conv("input", "stem", 3, 64, 7, 2))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    channels = 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        for index in range(depth):
            width = 64 << stage
            x = model.block(x, f"layer{stage + 1}.{index}", channels, width, 2 if stage and not index else 1)
            channels = 4 * width
    x = net.op("Flatten", net.op("GlobalAveragePool", x), axis=1)
    weight = net.weight("fc.weight", (0.01 * model.random.standard_normal((1000, channels))).astype(np.float32))
    net.op("Gemm", x, weight, net.weight("fc.bias", np.zeros(1000, np.float32)), transB=1, out="output")
    net.save(args.out, {"input": (np.float32, ["batch", 3, 224, 224])}, {"output": (np.float32, ["batch", 1000])})


if __name__ == "__main__":
    main()
