"""The outside of an ONNX graph: names of its values, text inputs, and a loop over parts of many rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pushforward.graphs.graph import Graph
from pushforward.graphs.guard_inputs import UNSEEN

__all__ = ["finish"]


def finish(model: Any, graph: Graph) -> Any:
    """Give a translated model the names of its graph, text inputs, and parts.

    Args:
        model: ``onnx.ModelProto``; it is used up.
        graph: what it was translated from.
    """
    core = model.graph
    del core.value_info[:]
    internal = _prefix((*graph.inputs, *graph.outputs))
    _rename(core, internal)
    outer = onnx.GraphProto(name="guard")
    domains = {entry.domain for entry in model.opset_import}
    entering = []
    rows = {value.type.tensor_type.shape.dim[0].dim_param for value in core.input}
    for value, name in zip(core.input, graph.inputs, strict=True):
        given = onnx.ValueInfoProto()
        given.CopyFrom(value)
        given.name, entered = name, name
        if name in graph.texts:
            given.type.tensor_type.elem_type = onnx.TensorProto.STRING
            entered = f"{internal}code.{name}"
            outer.node.append(_label_encoder(name, entered, graph.texts[name]))
            if "ai.onnx.ml" not in domains:
                model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
                domains.add("ai.onnx.ml")
        _set_rows(given, rows)
        outer.input.append(given)
        entering.append(entered)
    for value, name in zip(core.output, graph.outputs, strict=True):
        leaving = onnx.ValueInfoProto()
        leaving.CopyFrom(value)
        leaving.name = name
        _set_rows(leaving, rows)
        outer.output.append(leaving)
    outer.initializer.extend(core.initializer)
    if graph.part:
        _add_parts(outer, core, entering, list(graph.outputs), internal, graph.part)
    else:
        outer.node.extend(
            helper.make_node("Identity", [a], [v.name]) for a, v in zip(entering, core.input, strict=True)
        )
        outer.node.extend(core.node)
        outer.node.extend(
            helper.make_node("Identity", [v.name], [b]) for v, b in zip(core.output, graph.outputs, strict=True)
        )
    model.graph.CopyFrom(outer)
    model.producer_name, model.doc_string = "pushforward", "A guard: score, p-value and alarm of each row."
    onnx.checker.check_model(model)
    return model


def _prefix(names: Iterable[str]) -> str:
    """A beginning that no name of an input or output has."""
    prefix = "_"
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    return prefix


def _rename(graph: Any, prefix: str) -> None:
    """Rename every value, so that none has the name of an input."""
    names: dict[str, str] = {"": ""}

    def new(name: str) -> str:
        return names.setdefault(name, f"{prefix}{len(names)}")

    _each_name(graph, new)


def _each_name(graph: Any, new: Callable[[str], str]) -> None:
    for entry in (*graph.input, *graph.output, *graph.initializer):
        entry.name = new(entry.name)
    for number, node in enumerate(graph.node):
        node.input[:] = [new(name) for name in node.input]
        node.output[:] = [new(name) for name in node.output]
        node.name = f"{node.op_type} {number}"
        del node.metadata_props[:]
        node.doc_string = ""
        for attribute in node.attribute:
            if attribute.HasField("g"):
                del attribute.g.value_info[:]
                _each_name(attribute.g, new)


def _set_rows(value: Any, rows: Collection[str]) -> None:
    """Name the number of rows, which has one of these names; an output of a network may have another first size, or none."""
    sizes = value.type.tensor_type.shape.dim
    if sizes and sizes[0].HasField("dim_param") and sizes[0].dim_param in rows:
        sizes[0].dim_param = "rows"


def _label_encoder(name: str, output: str, codes: Any) -> Any:
    return helper.make_node(
        "LabelEncoder", [name], [output], domain="ai.onnx.ml",
        keys_strings=list(codes), values_int64s=list(codes.values()), default_int64=UNSEEN,
    )  # fmt: skip


def _add_parts(outer: Any, core: Any, entering: list[str], leaving: list[str], prefix: str, size: int) -> None:
    """Pad the inputs to a multiple of the size of a part, and run the core on each part by Scan."""

    def constant(name: str, values: list[int]) -> str:
        outer.initializer.append(numpy_helper.from_array(np.array(values, dtype=np.int64), prefix + name))
        return prefix + name

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        outer.node.append(helper.make_node(kind, inputs, [prefix + output], **attributes))
        return prefix + output

    one, part, zero = constant("one", [1]), constant("part", [size]), constant("zero", [0])
    rows = node("Shape", [entering[0]], "rows", start=0, end=1)
    whole_part = node("Max", [node("Min", [rows, part], "smaller"), one], "size")
    above = node("Add", [rows, node("Sub", [whole_part, one], "less")], "above")
    count = node("Max", [node("Div", [above, whole_part], "parts"), one], "count")
    missing = node("Sub", [node("Mul", [count, whole_part], "total"), rows], "missing")
    scanned = []
    for number, (value, name) in enumerate(zip(core.input, entering, strict=True)):
        kind = value.type.tensor_type.elem_type
        tail = [dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]
        zeros, pieces = missing, [count, whole_part]
        if tail:
            after = constant(f"tail {number}", tail)
            zeros = node("Concat", [missing, after], f"zeros shape {number}", axis=0)
            pieces.append(after)
        blank = numpy_helper.from_array(np.zeros(1, dtype=helper.tensor_dtype_to_np_dtype(kind)))
        filler = node("ConstantOfShape", [zeros], f"zeros {number}", value=blank)
        padded = node("Concat", [name, filler], f"padded {number}", axis=0)
        shape = node("Concat", pieces, f"shape {number}", axis=0)
        scanned.append(node("Reshape", [padded, shape], f"by parts {number}"))
    body = onnx.GraphProto(name="part")
    body.input.extend(core.input)
    body.output.extend(core.output)
    body.node.extend(core.node)
    results = [f"{prefix}by parts {name}" for name in leaving]
    outer.node.append(helper.make_node("Scan", scanned, results, num_scan_inputs=len(scanned), body=body))
    flat = constant("flat", [-1])
    for name, result in zip(leaving, results, strict=True):
        whole = node("Reshape", [result, flat], f"whole {name}")
        outer.node.append(helper.make_node("Slice", [whole, zero, rows], [name]))
