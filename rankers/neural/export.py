"""From a trained torch network to the ONNX graph that serves it, in float32 or int8."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import onnx
import torch
from numpy.typing import NDArray

from explorank.rankers.errors import InvalidTraining
from explorank.rankers.neural.networks import ExportableNetwork

Feed: TypeAlias = Mapping[str, NDArray[Any]]
"""The inputs of a graph by name."""

_OPSET: Final = 18
_LARGEST_GRAPH: Final = 2_000_000_000
"""Protocol buffers end at 2 GiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """In which numbers a graph computes, and why."""

    kind: str
    """`float32` or `int8`."""
    reason: str


def to_onnx(network: ExportableNetwork) -> bytes:
    """Return the graph of a network in evaluation mode; the same weights give the same bytes.

    Raises `InvalidTraining` for a network of more than 2 GB, which no graph can hold.
    """
    size = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    if size > _LARGEST_GRAPH:
        raise InvalidTraining(
            f"The network has {size / 1e9:.1f} GB of weights, and an ONNX graph holds 2. Raise min_count, so that "
            "seldom items share an embedding, lower the width, or begin with a smaller model."
        )
    interface = network.interface()
    dimensions = {
        name: torch.export.Dim(name, max=interface.longest.get(name))
        for axes in interface.axes.values()
        for name in axes.values()
    }
    shapes = tuple(
        {axis: dimensions[name] for axis, name in interface.axes[tensor].items()}
        for tensor in interface.inputs
    )
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                network.cpu().eval(),
                tuple(interface.inputs.values()),
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                input_names=list(interface.inputs),
                output_names=list(interface.outputs),
                dynamic_shapes=shapes,
            )
    finally:
        logger.setLevel(before)
    model = program.model_proto
    # What the exporter notes of its own run: source lines and paths of the machine that trained.
    for part in (
        model,
        model.graph,
        *model.graph.node,
        *model.graph.input,
        *model.graph.output,
        *model.graph.value_info,
    ):
        del part.metadata_props[:]
        part.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    return bytes(model.SerializeToString(deterministic=True))


def to_int8(model: bytes, feeds: Sequence[Feed]) -> bytes:
    """Return the graph with products with weights in int8, activations scaled by the ranges that `feeds` span.

    Fixed ranges, not those of each batch (dynamic quantisation): a row's score must depend on that row alone.
    """
    from onnxruntime import quantization as ort  # noqa: PLC0415 - imports much

    graph = onnx.load_model_from_string(model)
    names = {one.name for one in graph.graph.input}
    weights = {one.name for one in graph.graph.initializer}
    # Attention multiplies activations with one another, whose range int8 is too coarse for.
    without_weights = [node.name for node in graph.graph.node if not weights & set(node.input)]

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> Feed | None:
            feed = next(self._feeds, None)
            return None if feed is None else {name: value for name, value in feed.items() if name in names}

    with tempfile.TemporaryDirectory() as folder, _quiet():
        draft = Path(folder) / "int8.onnx"
        ort.quantize_static(
            graph,
            draft,
            Reader(),
            quant_format=ort.QuantFormat.QDQ,
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=without_weights,
            per_channel=True,
        )
        return draft.read_bytes()


def choose_precision(
    model: bytes, feeds: Sequence[Feed], accuracy: Callable[[bytes], float] | None, tolerance: float
) -> tuple[bytes, Precision]:
    """Return the int8 graph where its accuracy (NDCG@10 on the later slice) allows it, else the one given."""
    if accuracy is None:
        return model, Precision(
            kind="float32", reason="int8 was asked for, and there were no validation groups to prove it on"
        )
    small = to_int8(model, feeds)
    full, reduced = accuracy(model), accuracy(small)
    told = f"NDCG@10 on the validation data is {reduced:.4f} with int8 and {full:.4f} with float32"
    # A NaN allows nothing.
    if full - reduced <= tolerance:
        return small, Precision(kind="int8", reason=f"{told}, within {tolerance}")
    return model, Precision(kind="float32", reason=f"{told}, more than {tolerance} apart")


class _quiet:  # noqa: N801 - reads as what it does
    """Within the block the root logger says errors alone: the quantiser advises on it how to prepare graphs."""

    def __enter__(self) -> None:
        self._before = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        logging.getLogger().setLevel(self._before)
