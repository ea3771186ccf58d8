"""A thin builder over onnx.helper: each call adds one node and gives the name of its result."""
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Network:
    """Nodes and initializers of one graph in the order in which they are added."""

    def __init__(self, opset: int = 17):
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes) -> str:
        """Adds a node with one result."""
        name = f"/{kind}_{len(self.nodes)}"
        result = out or f"{name}_output_0"
        self.nodes.append(helper.make_node(kind, list(inputs), [result], name=name, **attributes))
        return result

    def weight(self, name: str, value: np.ndarray) -> str:
        """Adds an initializer."""
        self.initializers.append(numpy_helper.from_array(np.array(value, order="C"), name))
        return name

    def constant(self, value, dtype=np.float32) -> str:
        """Adds a Constant node, as the TorchScript exporter writes scalars and shapes."""
        return self.op("Constant", value=numpy_helper.from_array(np.asarray(value, dtype)))

    def ints(self, *values: int) -> str:
        """Adds a rank-1 int64 Constant node."""
        return self.constant(list(values), np.int64)

    def save(self, path: str, inputs: dict, outputs: dict) -> None:
        """Writes the model. Inputs and outputs map a name to (numpy type, extents)."""
        def info(ports):
            return [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
                    for name, (dtype, shape) in ports.items()]
        graph = helper.make_graph(self.nodes, "main_graph", info(inputs), info(outputs), self.initializers)
        ir = 8 if self.opset <= 18 else 10
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=ir)
        onnx.save(model, path)


FLOAT = TensorProto.FLOAT
