#!/usr/bin/env python3
"""Measures time to the first answer and resident memory of one large model.

    footprint.py STREAMINFER MODEL.onnx

The first answer is a whole `run` process on a warm page cache: open, load, plan, pack, one request, write the result.
Memory is read from /proc while `bench` runs: steady after the load, and the peak over the process's life.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

SHAPE = (1, 128)
MIB = 1 << 20


def resident(pid: int) -> dict[str, int]:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {key: int(fields[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM")}


def main() -> None:
    program, model = sys.argv[1:]
    pathlib.Path(model).read_bytes()
    ids = np.random.default_rng(0).integers(0, 30522, SHAPE)
    feed = {"input_ids": ids, "attention_mask": np.ones(SHAPE, np.int64), "token_type_ids": np.zeros(SHAPE, np.int64)}
    with tempfile.TemporaryDirectory() as folder:
        inputs = f"{folder}/in.npz"
        np.savez(inputs, **feed)
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            subprocess.run([program, "run", model, "--inputs", inputs, "--outputs", f"{folder}/out.npz", "--threads", "2"], check=True)
            seconds.append(time.perf_counter() - start)
        command = [program, "bench", model, "--inputs", inputs, "--threads", "2", "--duration", "6s"]
        bench = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        time.sleep(4)
        memory = resident(bench.pid)
        report = json.loads(bench.communicate()[0])
    size, held = os.path.getsize(model), report["weights_bytes"] + report["arena_bytes"] + report["pinned_bytes"]
    print(f"model file            {size / MIB:8.1f} MiB")
    print(f"first answer          {sorted(seconds)[1]:8.2f} s    (median of 3; {', '.join(f'{s:.2f}' for s in seconds)})")
    print(f"weights + arenas      {held / MIB:8.1f} MiB")
    print(f"steady resident       {memory['VmRSS'] / MIB:8.1f} MiB  {memory['VmRSS'] / held:.2f} x weights + arenas")
    print(f"peak resident         {memory['VmHWM'] / MIB:8.1f} MiB  {memory['VmHWM'] / size:.2f} x model file")


if __name__ == "__main__":
    main()
