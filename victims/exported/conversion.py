"""ONNX models as PyTorch networks, which have gradients."""

from __future__ import annotations

import contextlib
import graphlib
import importlib
import tempfile
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from reid_attack_bench.errors import BenchError

from .model import reason

_OPSET = 17
"""Newest version of ONNX's operators that onnx2torch knows all common ones of."""


def converted(path: Path, runtime: Any) -> nn.Module:
    """The ONNX model at `path` as a PyTorch network of the same outputs, by onnx2torch (Apache-2.0).

    Args:
        path: the ONNX file.
        runtime: the package onnxruntime, which folds constants; onnx2torch needs the ranks that it then can tell.

    Raises:
        BenchError: a package is missing, or an operator has no counterpart.
    """
    onnx, onnx2torch = _package("onnx"), _package("onnx2torch")
    model = _folded(path, onnx, runtime)
    _check_operators(model, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            network: nn.Module = onnx2torch.convert(model)
    except Exception as error:  # converters raise what they like
        raise BenchError(f"{path.name}: onnx2torch does not convert it: {reason(error)}; {INSTEAD}") from error
    names = [output.name for output in model.graph.output]
    return (network if len(names) == 1 else _Named(network, names)).eval()


class _Named(nn.Module):
    """A network with several outputs, by name."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, images: Any) -> dict[str, Any]:
        return dict(zip(self.names, self.network(images), strict=True))


INSTEAD = "export it with opset 16, or leave out gradients=true to have it as a target"


def _folded(path: Path, onnx: Any, runtime: Any) -> Any:
    """The model with constants folded, in opset 17 if it is of a newer one that can be converted."""
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC  # standard operators only
    options.log_severity_level = 3  # that the optimised file is for any machine
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "model.onnx")
        runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        model = onnx.load(options.optimized_model_filepath)
    if _opsets(model).get("", 0) > _OPSET:
        with contextlib.suppress(Exception):  # operators that changed are named later
            model = importlib.import_module("onnx.version_converter").convert_version(model, _OPSET)
    for node in model.graph.node:
        if (node.domain, node.op_type) == ("", "GlobalMaxPool") and _opsets(model)[""] <= _OPSET:
            node.op_type = "ReduceMax"  # the same for images, and known to onnx2torch
            node.attribute.extend([onnx.helper.make_attribute("axes", [2, 3])])
    _cast_weights(model.graph, onnx)
    _sort(model.graph)
    return model


def _cast_weights(graph: Any, onnx: Any) -> None:
    """Store weights as they are cast: onnxruntime inserts casts to float32 for the CPU, and leaves the weights."""
    weights = {each.name: each for each in graph.initializer}
    for node in [each for each in graph.node if each.op_type == "Cast" and each.input[0] in weights]:
        values = onnx.numpy_helper.to_array(weights[node.input[0]])
        (wanted,) = (each.i for each in node.attribute if each.name == "to")
        values = values.astype(onnx.helper.tensor_dtype_to_np_dtype(wanted))
        graph.initializer.append(onnx.numpy_helper.from_array(values, node.output[0]))
        graph.node.remove(node)


def _sort(graph: Any) -> None:
    """Put each node behind those that it needs, under a name of its own; onnxruntime does neither."""
    made_by = {name: place for place, node in enumerate(graph.node) for name in node.output}
    needs = {place: [made_by[name] for name in node.input if name in made_by] for place, node in enumerate(graph.node)}
    nodes = [graph.node[place] for place in graphlib.TopologicalSorter(needs).static_order()]
    for place, node in enumerate(nodes):
        node.name = f"{node.op_type}{place}"
    del graph.node[:]
    graph.node.extend(nodes)


def _check_operators(model: Any, path: Path) -> None:
    registry = importlib.import_module("onnx2torch.node_converters.registry")
    opsets, unknown = _opsets(model), set()
    for node in model.graph.node:
        try:
            registry.get_converter(domain=node.domain, operation_type=node.op_type, version=opsets.get(node.domain, 1))
        except NotImplementedError:
            unknown.add(f"{node.domain}.{node.op_type}".lstrip("."))
    if unknown:
        raise BenchError(
            f"{path.name}: onnx2torch knows no {' and no '.join(sorted(unknown))} of opset {opsets.get('', 1)}, so it "
            f"has no gradients: {INSTEAD}"
        )


def _opsets(model: Any) -> dict[str, int]:
    return {each.domain: each.version for each in model.opset_import}


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BenchError(
            f"gradients of ONNX models require {error.name}, which is not installed: pip install {error.name}"
        ) from error
