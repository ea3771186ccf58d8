"""Models that are made where they are run, and what is put into them. Needs numpy only."""
import pathlib
import subprocess
import sys
import tarfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
MINILM = ["--layers", "6", "--hidden", "384", "--intermediate", "1536", "--pool"]
# Generator and its arguments, the file's name in place of OUT.
RECIPES = {
    "bert-base": ["bert.py", "OUT"],
    "bert-base-dynamo": ["bert.py", "OUT", "--style", "dynamo"],
    "minilm": ["bert.py", "OUT", *MINILM],
    "resnet50": ["resnet.py", "OUT"],
    "resnet50-norm": ["resnet.py", "OUT", "--keep-norm"],
    "mlp": ["mlp.py", "mlp", "OUT"],
    "dlrm": ["mlp.py", "dlrm", "OUT"],
}
VOCABULARY, SPARSE_ROWS = 30522, 10_000


def unpack(name: str, folder: pathlib.Path) -> pathlib.Path:
    """An archive of the bundle's, in a folder of that name."""
    with tarfile.open(HERE / f"{name}.tar.xz") as tar:
        # Older versions of Python 3 have no filters.
        tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    return folder / name


def make(folder: pathlib.Path, names) -> dict[str, pathlib.Path]:
    """Writes the named models that are not there yet, all at once."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.onnx" for name in names}
    missing = [name for name in names if not paths[name].exists()]
    jobs = []
    for name in missing:
        script, *arguments = RECIPES[name]
        arguments = [str(paths[name].with_suffix(".part")) if word == "OUT" else word for word in arguments]
        jobs.append((name, subprocess.Popen([sys.executable, HERE / "zoo" / script, *arguments])))
    for name, job in jobs:
        if job.wait() != 0:
            sys.exit(f"the generator of {name} failed")
        paths[name].with_suffix(".part").rename(paths[name])
    return paths


def feed(name: str, batch: int, length: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    """Fresh inputs of a made model, in the order of its inputs."""
    if name.startswith(("bert", "minilm")):
        kept = random.integers(1, length + 1, batch)
        return {
            "input_ids": random.integers(0, VOCABULARY, (batch, length)),
            "attention_mask": (np.arange(length)[None] < kept[:, None]).astype(np.int64),
            "token_type_ids": random.integers(0, 2, (batch, length)),
        }
    floats = lambda *shape: random.standard_normal(shape).astype(np.float32)
    if name.startswith("resnet"):
        return {"input": floats(batch, 3, 224, 224)}
    if name == "dlrm":
        return {"dense": floats(batch, 13), "sparse": random.integers(0, SPARSE_ROWS, (batch, 26))}
    return {"input": floats(batch, 784)}
