"""A thin writer of ONNX files that needs numpy only: each call adds one node and gives the name of its result.

Messages are written field by field as protobuf encodes them; the numbers are those of onnx.proto.
"""
import numpy as np

FLOAT = 1
DTYPES = {np.dtype(name): number for name, number in (("float32", FLOAT), ("uint8", 2), ("int8", 3), ("int32", 6), ("int64", 7), ("bool", 9))}


def varint(value: int) -> bytes:
    """A number, 7 bits a byte; negative ones as 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def put(field: int, payload: str | bytes) -> bytes:
    """A string, byte string or message."""
    payload = payload.encode() if isinstance(payload, str) else payload
    return b"".join((varint(field << 3 | 2), varint(len(payload)), payload))


def tensor(name: str, value: np.ndarray) -> bytes:
    """TensorProto"""
    value = np.asarray(value, order="C")
    dims = b"".join(number(1, extent) for extent in value.shape)
    kind, data = number(2, DTYPES[value.dtype]), put(9, value.astype(value.dtype.newbyteorder("<")).tobytes())
    return dims + kind + (put(8, name) if name else b"") + data


def attribute(name: str, value) -> bytes:
    """AttributeProto of the type that the value has."""
    if isinstance(value, np.ndarray):
        return put(1, name) + put(5, tensor("", value)) + number(20, 4)
    if isinstance(value, str):
        return put(1, name) + put(4, value) + number(20, 3)
    if isinstance(value, float):
        return put(1, name) + varint(2 << 3 | 5) + np.float32(value).tobytes() + number(20, 1)
    if isinstance(value, (list, tuple)):
        return put(1, name) + b"".join(number(8, int(item)) for item in value) + number(20, 7)
    return put(1, name) + number(3, int(value)) + number(20, 2)


def port(name: str, dtype, shape) -> bytes:
    """ValueInfoProto; an extent that is a string is open."""
    extents = b"".join(put(1, number(1, extent) if isinstance(extent, int) else put(2, extent)) for extent in shape)
    return put(1, name) + put(2, put(1, number(1, DTYPES[np.dtype(dtype)]) + put(2, extents)))


class Network:
    """Nodes and initializers of one graph in the order in which they are added."""

    def __init__(self, opset: int = 17):
        self.opset = opset
        self.nodes: list[bytes] = []
        self.initializers: list[bytes] = []

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes) -> str:
        """Adds a node with one result."""
        name = f"/{kind}_{len(self.nodes)}"
        result = out or f"{name}_output_0"
        operands = b"".join(put(1, operand) for operand in inputs)
        # In order of name, as onnx.helper writes them.
        given = b"".join(put(5, attribute(*item)) for item in sorted(attributes.items()))
        self.nodes.append(operands + put(2, result) + put(3, name) + put(4, kind) + given)
        return result

    def weight(self, name: str, value: np.ndarray) -> str:
        """Adds an initializer."""
        self.initializers.append(tensor(name, value))
        return name

    def constant(self, value, dtype=np.float32) -> str:
        """Adds a Constant node, as the TorchScript exporter writes scalars and shapes."""
        return self.op("Constant", value=np.asarray(value, dtype))

    def ints(self, *values: int) -> str:
        """Adds a rank-1 int64 Constant node."""
        return self.constant(list(values), np.int64)

    def save(self, path: str, inputs: dict, outputs: dict) -> None:
        """Writes the model. Inputs and outputs map a name to (numpy type, extents)."""
        fields = [put(1, node) for node in self.nodes] + [put(2, "main_graph")] + [put(5, weight) for weight in self.initializers]
        fields += [put(11, port(name, *ty)) for name, ty in inputs.items()] + [put(12, port(name, *ty)) for name, ty in outputs.items()]
        ir = 8 if self.opset <= 18 else 10
        with open(path, "wb") as file:
            file.write(number(1, ir) + varint(7 << 3 | 2) + varint(sum(map(len, fields))))
            file.writelines(fields)
            file.write(put(8, put(1, "") + number(2, self.opset)))
