"""Whether machine code waits for the launch before it: replays start launches early, and only the code itself makes them wait.

In the listing of cuobjdump, `griddepcontrol.wait` is ACQBULK. Every entry has it, and before it there is neither a store to global memory nor an atomic
operation. Code for GPUs before compute capability 9.0 has none, and its launches are not started early.
"""
import pathlib
import re
import subprocess

WRITES = re.compile(r"\b(ST|STG|RED|REDG|ATOM|ATOMG)(\.|\s)")


def entries(listing: str):
    """Architecture, name and lines of every entry's code."""
    architecture, name, lines = "", "", []
    for line in listing.splitlines():
        if found := re.match(r"\s*arch = (\w+)", line):
            if name:
                yield architecture, name, lines
            architecture, name, lines = found[1], "", []
        elif found := re.match(r"\s*Function : (\S+)", line):
            if name:
                yield architecture, name, lines
            name, lines = found[1], []
        else:
            lines.append(line)
    if name:
        yield architecture, name, lines


def faults(listing: str) -> tuple[int, list[str]]:
    """How many entries were read, and what is wrong with them."""
    count, found = 0, []
    for architecture, name, lines in entries(listing):
        if int(re.sub(r"\D", "", architecture) or 0) < 90:
            continue
        count += 1
        wait = next((at for at, line in enumerate(lines) if "ACQBULK" in line), None)
        if wait is None:
            found.append(f"{name} for {architecture} does not wait for the launch before it")
        elif any(WRITES.search(line) for line in lines[:wait]):
            found.append(f"{name} for {architecture} writes before it has waited")
    return count, found


def check(tool: str, images: pathlib.Path) -> tuple[int, list[str]]:
    """The same of all images in a folder."""
    total, wrong = 0, []
    for image in sorted(images.glob("*.fatbin")):
        done = subprocess.run([tool, "-sass", image], capture_output=True, text=True)
        if done.returncode != 0:
            wrong.append(f"{image.name}: {(done.stderr.strip().splitlines() or ['cannot be read'])[-1]}")
            continue
        count, found = faults(done.stdout)
        total += count
        wrong += found if count else [f"{image.name}: no code for compute capability 9.0 or newer"]
    return total, wrong
