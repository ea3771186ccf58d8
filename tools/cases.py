"""The models that are checked and measured, with the shapes they are given and seeded random inputs."""
import dataclasses

import numpy as np

HEADS = {"bert-base-torchscript": "torchscript", "bert-base-dynamo": "dynamo", "bert-base-simplified": "simplified"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One model file and the input shapes it is run with; `fixed` gives whole inputs, `below` bounds of integer inputs."""
    model: str
    family: str
    shapes: list[dict[str, tuple[int, ...]]]
    fixed: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    below: dict[str, int] = dataclasses.field(default_factory=dict)

    def feed(self, session, shape: dict, seed: int) -> dict[str, np.ndarray]:
        """Random inputs for an ONNX Runtime session: floats standard normal, integers inside their range, masks that keep
        at least the first position."""
        random = np.random.default_rng(seed)
        feed = {}
        for port in session.get_inputs():
            if port.name in self.fixed:
                feed[port.name] = self.fixed[port.name]
            elif port.name == "attention_mask":
                rows, columns = shape[port.name]
                feed[port.name] = (np.arange(columns)[None] < random.integers(1, columns + 1, rows)[:, None]).astype(np.int64)
            elif "int" in port.type:
                dtype = np.int32 if "int32" in port.type else np.int64
                feed[port.name] = random.integers(0, self.below[port.name], shape[port.name]).astype(dtype)
            else:
                feed[port.name] = random.standard_normal(shape[port.name]).astype(np.float32)
        return feed


def texts(*shapes, types=True):
    names = ("input_ids", "attention_mask") + (("token_type_ids",) if types else ())
    return [dict.fromkeys(names, shape) for shape in shapes]


def images(*shapes, name="x"):
    return [{name: shape} for shape in shapes]


WORDS = {"input_ids": 30522, "token_type_ids": 2}
RATE = {"sr": np.array(16000, np.int64)}
RATE8 = {"sr": np.array(8000, np.int64)}

CASES = [
    Case("magika", "byte classifier", [{"bytes": (rows, 2048)} for rows in (1, 3, 8)], below={"bytes": 257}),
    Case("minilm", "transformer", texts((1, 1), (1, 16), (3, 37), (8, 128)), below=WORDS),
    Case("paraphrase-minilm", "transformer", texts((1, 9), (2, 33), (4, 64), types=False), below=WORDS),
    *(Case(name, "transformer", texts((1, 24), (2, 65)), below=WORDS) for name in HEADS),
    Case("resnet50", "CNN", images((1, 3, 224, 224), (3, 3, 224, 224), name="input")),
    Case("resnet50-norm", "CNN", images((1, 3, 224, 224), (2, 3, 224, 224), name="input")),
    Case("ppocr-det", "OCR", images((1, 3, 64, 64), (1, 3, 192, 320), (2, 3, 96, 160))),
    Case("ppocr-rec", "OCR", images((1, 3, 48, 64), (1, 3, 48, 320), (3, 3, 48, 160))),
    Case("ppocr-cls", "OCR", images((1, 3, 48, 192), (5, 3, 48, 192))),
    Case("ddddocr", "OCR", images((1, 1, 64, 96), (1, 1, 64, 200), name="input1")),
    Case("silero", "recurrent", [{"input": (rows, 576), "state": (2, rows, 128)} for rows in (1, 3)], fixed=RATE),
    Case("silero", "recurrent", [{"input": (2, 288), "state": (2, 2, 128)}], fixed=RATE8),
    Case("silero-ifless", "recurrent", [{"input": (rows, 576), "state": (2, rows, 128)} for rows in (1, 4)], fixed=RATE),
    Case("silero-sequence", "recurrent", [{"input": (steps, 576), "h": (1, 1, 128), "c": (1, 1, 128)} for steps in (1, 7, 30)]),
    Case("mlp", "MLP", [{"input": (rows, 784)} for rows in (1, 5, 64)]),
    Case("skills", "MLP", [{"embedding": (rows, 384)} for rows in (1, 16)]),
    Case("dlrm", "MLP", [{"dense": (rows, 13), "sparse": (rows, 26)} for rows in (1, 7, 128)], below={"sparse": 10_000}),
]
