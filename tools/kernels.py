"""Compiles kernels/*.cu to the PTX that the repository keeps, and writes its manifest.

    kernels.py NVCC
    kernels.py NVCC --images FOLDER

Each family becomes kernels/ptx/<family>.compute_80.ptx, and .compute_90a.ptx if its source mentions ARCH_90A; only that if it mentions
ARCH_90A_ALONE. A line of
kernels/ptx/manifest.txt is: family, target, hash of the sources (FNV-1a, 64 bits, over <family>.cu and then, in order of name, every
.cuh that it includes, directly or not), entries. tests/kernels.rs proves that the manifest fits the sources, the PTX and the library's list of entries. Compiled for
compute capability 9.0, every entry must wait for the launch before it writes anything: replays start launches early.

With --images each family becomes FOLDER/<family>.<hash of the sources>.fatbin, compressed machine code for several GPUs; one that is
there is not compiled again.
"""

import pathlib
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

ROOT = pathlib.Path(__file__).resolve().parent.parent
KERNELS = ROOT / "kernels"
# What machine code is made for; build.rs says the same. sm_90a serves exactly compute capability 9.0.
ARCHITECTURES = ("80", "90a", "100", "120")
FLAGS = ["-ptx", "-O3", "-std=c++17", "-Werror", "all-warnings"]


def fnv1a(data, state=0xCBF29CE484222325):
    for byte in data:
        state = ((state ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return state


def headers(source, found=()):
    """The headers in kernels/ that a source includes, directly or not."""
    found = set(found)
    for name in re.findall(r'^#include "(.+)"', source.read_text(), re.MULTILINE):
        if name not in found:
            found |= headers(KERNELS / name, found | {name})
    return found


def source_hash(source):
    state = fnv1a(source.read_bytes())
    for name in sorted(headers(source)):
        state = fnv1a((KERNELS / name).read_bytes(), state)
    return f"{state:016x}"


def is_90a_alone(source):
    return "ARCH_90A_ALONE" in source.read_text()


def targets(source):
    if not is_90a_alone(source):
        yield "compute_80"
    if "ARCH_90A" in source.read_text():
        yield "compute_90a"


def compile_ptx(nvcc, source, target, output):
    command = [nvcc, f"-arch={target}", *FLAGS, str(source.relative_to(ROOT)), "-o", str(output)]
    subprocess.run(command, cwd=ROOT, check=True)
    return (ROOT / output).read_text()


def check_waits(source, text):
    """Ends with a message if an entry does not wait, or writes before it does."""
    for body in re.split(r"^\s*\.visible \.entry ", text, flags=re.MULTILINE)[1:]:
        name, wait = re.match(r"\w+", body)[0], body.find("griddepcontrol.wait")
        written = re.search(r"\b(st|atom|red)\.(\w+\.)*global", body)
        if wait < 0 or written and written.start() < wait:
            sys.exit(f"kernels: {name} of {source.name} calls neither begin() nor await_launch() before it writes")


def compile_one(nvcc, source, target):
    with tempfile.TemporaryDirectory() as folder:
        check_waits(source, compile_ptx(nvcc, source, "compute_90a", pathlib.Path(folder) / "waits.ptx"))
    # The file's path is the only thing in PTX that depends on where it was made.
    text = compile_ptx(nvcc, source, target, (KERNELS / "ptx" / f"{source.stem}.{target}.ptx").relative_to(ROOT))
    entries = re.findall(r"^\s*\.visible \.entry (\w+)\(", text, re.MULTILINE)
    return " ".join([source.stem, target, source_hash(source), *sorted(entries)])


def compile_image(nvcc, source, folder):
    output = folder / f"{source.stem}.{source_hash(source)}.fatbin"
    if output.exists():
        return output
    start = time.monotonic()
    partial = output.with_suffix(".part")
    flags = ["--fatbin", "-t", "2", "-Xfatbin=-compress-all", *FLAGS[1:]]
    architectures = ["90a"] if is_90a_alone(source) else ARCHITECTURES
    targets = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in architectures]
    subprocess.run([nvcc, *flags, *targets, str(source.relative_to(ROOT)), "-o", str(partial)], cwd=ROOT, check=True)
    partial.rename(output)
    print(f"{output.name}: {output.stat().st_size >> 10} KiB in {time.monotonic() - start:.0f} s", flush=True)
    return output


def compile_images(nvcc, folder):
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        made = set(pool.map(lambda source: compile_image(nvcc, source, folder), sorted(KERNELS.glob("*.cu"))))
    for stale in set(folder.glob("*.fatbin")) - made:
        stale.unlink()


def main():
    nvcc = sys.argv[1]
    if not nvcc:
        sys.exit("kernels: no nvcc: name one in NVCC, or run make kernels, which gets it from PyPI")
    if sys.argv[2:3] == ["--images"]:
        print(f"kernels: machine code by {nvcc}")
        compile_images(nvcc, pathlib.Path(sys.argv[3]).resolve())
        return
    (KERNELS / "ptx").mkdir(exist_ok=True)
    jobs = [(source, target) for source in sorted(KERNELS.glob("*.cu")) for target in targets(source)]
    # A family whose sources are as they were is left alone.
    manifest = KERNELS / "ptx" / "manifest.txt"
    known = {tuple(line.split()[:3]): line for line in manifest.read_text().splitlines()} if manifest.exists() else {}

    def line(job):
        source, target = job
        current = known.get((source.stem, target, source_hash(source)))
        there = (KERNELS / "ptx" / f"{source.stem}.{target}.ptx").exists()
        return current if current and there else compile_one(nvcc, source, target)

    with ThreadPoolExecutor(2) as pool:
        lines = list(pool.map(line, jobs))
    manifest.write_text("\n".join(lines) + "\n")
    expected = {f"{source.stem}.{target}.ptx" for source, target in jobs}
    for stale in set(path.name for path in (KERNELS / "ptx").glob("*.ptx")) - expected:
        (KERNELS / "ptx" / stale).unlink()


if __name__ == "__main__":
    main()
