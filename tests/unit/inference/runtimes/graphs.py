"""Graphs in ONNX that keep their weights in a file beside them, as torch.onnx.export writes them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper

#: Weights enough to be kept apart.
WIDTH_OF_WEIGHTS = 300


def save_with_weights_beside(file: Path, inputs: Sequence[str], location: str = "weights.bin") -> None:
    """Write a graph that answers y = (the sum of its inputs) * (0 + 1 + … + 299), with the weights in `location`."""
    weights = numpy.arange(WIDTH_OF_WEIGHTS, dtype=numpy.float32).reshape(1, -1)
    graph = helper.make_graph(
        [
            helper.make_node("Sum", list(inputs), ["total"]),
            helper.make_node("MatMul", ["total", "weights"], ["wide"]),
            helper.make_node("ReduceSum", ["wide", "axis"], ["y"], keepdims=1),
        ],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(numpy.array([1]), "axis")],
    )
    model: Any = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.save_model(
        model,
        str(file),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=location,
        size_threshold=100,
    )
