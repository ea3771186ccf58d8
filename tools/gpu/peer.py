"""PyTorch on the same GPU: the same shapes with fresh random weights, in binary16, replayed as one CUDA graph.

    peer.py MODEL BATCH [SECONDS]

A request copies its inputs from page-locked memory, replays, copies the outputs back, and waits. Prints one JSON object.
"""
import json
import sys
import time

import numpy as np
import torch
from torch.nn import functional as F

LENGTH, WARM_UP = 128, 50
SHAPES = {"bert-base": (12, 768, 12, 3072), "minilm": (6, 384, 12, 1536)}


def weight(*shape, deviation=0.02):
    return torch.randn(shape, device="cuda", dtype=torch.float16) * deviation


def encoder(layers: int, hidden: int, heads: int, inner: int):
    """BERT with one product for queries, keys and values."""
    def linear(rows, columns):
        return weight(columns, rows), weight(columns)
    tables = weight(30522, hidden), weight(512, hidden), weight(2, hidden)
    norms = [(1 + weight(hidden), weight(hidden)) for _ in range(2 * layers + 1)]
    parts = [(linear(hidden, 3 * hidden), linear(hidden, hidden), linear(hidden, inner), linear(inner, hidden)) for _ in range(layers)]

    def run(ids, mask, types):
        norm = lambda x, index: F.layer_norm(x, (hidden,), *norms[index], eps=1e-12)
        rows, length = ids.shape
        x = norm(F.embedding(ids, tables[0]) + tables[1][:length] + F.embedding(types, tables[2]), 0)
        kept = mask.bool()[:, None, None, :]
        split = lambda y: y.view(rows, length, heads, hidden // heads).transpose(1, 2)
        for index, (qkv, out, up, down) in enumerate(parts):
            q, k, v = map(split, F.linear(x, *qkv).chunk(3, -1))
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=kept).transpose(1, 2).reshape(rows, length, hidden)
            x = norm(x + F.linear(y, *out), 2 * index + 1)
            x = norm(x + F.linear(F.gelu(F.linear(x, *up)), *down), 2 * index + 2)
        return x
    return run


def resnet():
    """ResNet-50 v1.5 with its batch normalisation folded, channels last."""
    def conv(channels, filters, kernel, stride=1):
        w = weight(filters, channels, kernel, kernel, deviation=(2 / (channels * kernel * kernel)) ** 0.5).to(memory_format=torch.channels_last)
        b = weight(filters, deviation=0.1)
        return lambda x: F.conv2d(x, w, b, stride, kernel // 2)
    stem, blocks, channels = conv(3, 64, 7, 2), [], 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        width = 64 << stage
        for index in range(depth):
            stride = 2 if stage and not index else 1
            side = conv(channels, 4 * width, 1, stride) if not index else lambda x: x
            blocks.append((conv(channels, width, 1), conv(width, width, 3, stride), conv(width, 4 * width, 1), side))
            channels = 4 * width
    head = weight(1000, channels)

    def run(image):
        x = F.max_pool2d(F.relu(stem(image.half().contiguous(memory_format=torch.channels_last))), 3, 2, 1)
        for first, second, third, side in blocks:
            x = F.relu(third(F.relu(second(F.relu(first(x))))) * 0.3 + side(x))
        return F.linear(x.mean((2, 3)), head)
    return run


def inputs(model: str, batch: int) -> list[torch.Tensor]:
    """Fresh inputs in page-locked memory."""
    if model == "resnet50":
        return [torch.randn(batch, 3, 224, 224).pin_memory()]
    mask = torch.arange(LENGTH)[None] < torch.randint(1, LENGTH + 1, (batch, 1))
    return [t.pin_memory() for t in (torch.randint(0, 30522, (batch, LENGTH)), mask.long(), torch.randint(0, 2, (batch, LENGTH)))]


@torch.inference_mode()
def main() -> None:
    model, batch = sys.argv[1], int(sys.argv[2])
    seconds = float(sys.argv[3]) if len(sys.argv) > 3 else 2
    run = resnet() if model == "resnet50" else encoder(*SHAPES[model])
    given = inputs(model, batch)
    placed = [tensor.cuda() for tensor in given]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            result = run(*placed)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            result = run(*placed)
        back = torch.empty(result.shape, dtype=result.dtype).pin_memory()

        def request():
            for to, tensor in zip(placed, given):
                to.copy_(tensor, non_blocking=True)
            graph.replay()
            back.copy_(result, non_blocking=True)
            stream.synchronize()
        for _ in range(WARM_UP):
            request()
        times, end = [], time.perf_counter() + seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            request()
            times.append(time.perf_counter() - start)
    assert torch.isfinite(back).all(), "the peer's result is not finite"
    p50, p99 = np.percentile(times, [50, 99]) * 1e6
    print(json.dumps({"p50_us": round(p50, 1), "p99_us": round(p99, 1), "requests": len(times), "torch": torch.__version__}))


if __name__ == "__main__":
    main()
