#!/usr/bin/env python3
"""Measures the CPU device against ONNX Runtime, pair by pair in one run, and writes a table.

    bench_cpu.py STREAMINFER MODELS [--rounds 3] [--seconds 1] [--json FILE] [--markdown FILE] [MODEL ...]

Both run closed loop, one request in flight, the same inputs, 1 and 2 threads, batch 1 and 8 (1 only where the model has
no batch). The two alternate in rounds, so that a slow phase of the machine meets both; the figures are medians over the
rounds of each round's P50. ONNX Runtime runs with its inputs and outputs bound beforehand, so no copies count against it.
"""
import argparse
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnxruntime

from cases import RATE, WORDS, Case, images, texts

PAIRS = [
    Case("magika", "byte classifier", [{"bytes": (rows, 2048)} for rows in (1, 8)], below={"bytes": 257}),
    Case("minilm", "transformer", texts((1, 128), (8, 128)), below=WORDS),
    Case("paraphrase-minilm", "transformer", texts((1, 128), (8, 128), types=False), below=WORDS),
    Case("bert-base-torchscript", "transformer", texts((1, 128), (8, 128)), below=WORDS),
    Case("bert-base-dynamo", "transformer", texts((1, 128)), below=WORDS),
    Case("resnet50", "CNN", images((1, 3, 224, 224), (8, 3, 224, 224), name="input")),
    Case("ppocr-det", "OCR", images((1, 3, 320, 320), (8, 3, 160, 160))),
    Case("ppocr-rec", "OCR", images((1, 3, 48, 320), (8, 3, 48, 320))),
    Case("ppocr-cls", "OCR", images((1, 3, 48, 192), (8, 3, 48, 192))),
    Case("ddddocr", "OCR", images((1, 1, 64, 160), name="input1")),
    Case("silero-ifless", "recurrent", [{"input": (rows, 576), "state": (2, rows, 128)} for rows in (1, 8)], fixed=RATE),
    Case("mlp", "MLP", [{"input": (rows, 784)} for rows in (1, 8)]),
    Case("skills", "MLP", [{"embedding": (rows, 384)} for rows in (1, 8)]),
    Case("dlrm", "MLP", [{"dense": (rows, 13), "sparse": (rows, 26)} for rows in (1, 8)], below={"sparse": 10_000}),
]


def open_peer(path: pathlib.Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def bound(session, feed: dict):
    """A function that runs the model on the feed: with inputs and freshly allocated outputs bound beforehand, or, where an
    output has another rank than the model declares and memory given beforehand is refused, with outputs allocated per run."""
    binding = session.io_binding()
    for name, value in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
    outputs = session.run(None, feed)
    for port, value in zip(session.get_outputs(), outputs):
        binding.bind_ortvalue_output(port.name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
    try:
        session.run_with_iobinding(binding)
    except RuntimeError:
        return lambda: session.run(None, feed)
    return lambda: session.run_with_iobinding(binding)


def peer_p50(run, seconds: float) -> float:
    """Median microseconds of one run."""
    samples, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(samples) < 5:
        start = time.perf_counter_ns()
        run()
        samples.append(time.perf_counter_ns() - start)
    return statistics.median(samples) / 1000


def our_p50(program: str, path: pathlib.Path, inputs: str, threads: int, seconds: float) -> float:
    command = [program, "bench", path, "--inputs", inputs, "--threads", str(threads), "--contexts", "1", "--duration", f"{seconds}s"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench-cpu: {done.stderr.strip()}")
    return json.loads(done.stdout)["p50_us"]


def measure(args, case: Case, threads: int, shape: dict, folder: str) -> dict:
    path = pathlib.Path(args.models) / f"{case.model}.onnx"
    session = open_peer(path, threads)
    feed = case.feed(session, shape, 0)
    inputs = f"{folder}/in.npz"
    np.savez(inputs, **feed)
    run = bound(session, feed)
    ours, theirs = [], []
    for _ in range(args.rounds):
        theirs.append(peer_p50(run, args.seconds))
        ours.append(our_p50(args.program, path, inputs, threads, args.seconds))
    row = {"model": case.model, "family": case.family, "shape": "x".join(map(str, next(iter(shape.values())))), "threads": threads,
           "ours_us": round(statistics.median(ours), 1), "onnxruntime_us": round(statistics.median(theirs), 1)}
    row["ratio"] = round(row["ours_us"] / row["onnxruntime_us"], 3)
    return row


def machine() -> str:
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} cores, ONNX Runtime {onnxruntime.__version__}"


def markdown(rows: list[dict]) -> str:
    lines = ["# CPU device against ONNX Runtime", "", f"`make bench-cpu` on {machine()}. P50 in microseconds, one request in flight; a ratio below 1 means",
             "streaminfer is faster. Medians of alternating rounds; every pair measured is listed.", "",
             "| model | family | input | threads | streaminfer | ONNX Runtime | ratio |", "|---|---|---|--:|--:|--:|--:|"]
    lines += [f"| {r['model']} | {r['family']} | {r['shape']} | {r['threads']} | {r['ours_us']:,.1f} | {r['onnxruntime_us']:,.1f} | {r['ratio']:.2f} |" for r in rows]
    ratios = [r["ratio"] for r in rows]
    lines += ["", f"Geometric mean of the ratios: {statistics.geometric_mean(ratios):.2f}; at most 1.0 in {sum(r <= 1 for r in ratios)} of {len(ratios)} pairs.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("models")
    parser.add_argument("only", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json")
    parser.add_argument("--markdown")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in (case for case in PAIRS if not args.only or case.model in args.only):
            for shape in case.shapes:
                for threads in (1, 2):
                    rows.append(measure(args, case, threads, shape, folder))
                    print("{model:22} {shape:14} t{threads} ours {ours_us:>10} ORT {onnxruntime_us:>10} ratio {ratio}".format(**rows[-1]), flush=True)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    if args.markdown:
        pathlib.Path(args.markdown).write_text(markdown(rows))


if __name__ == "__main__":
    main()
