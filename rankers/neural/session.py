"""An ONNX graph that scores on the calling thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorank.rankers.errors import CorruptRanker, MissingDependency


class Session:
    """Runs a graph by ONNX Runtime; immutable, and safe for use from many threads."""

    def __init__(self, model: bytes) -> None:
        """Take a graph. Raises `MissingDependency` without ONNX Runtime, `CorruptRanker` for what is no graph."""
        try:
            import onnxruntime  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise MissingDependency(
                "Neural rankers are scored by onnxruntime, which is not installed. Run "
                "`pip install 'explorank[neural]'`."
            ) from error
        options = onnxruntime.SessionOptions()
        # More threads gain nothing on an idle machine and cost much on a busy one; the stage has its own.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session: Any = onnxruntime.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise CorruptRanker(
                f"ONNX Runtime cannot read the graph ({error}). Restore an older copy of the folder, train again, or "
                "install the version of onnxruntime that it was written for."
            ) from error
        self._shapes = {one.name: one.shape for one in self._session.get_inputs()}

    def is_open(self, name: str, axis: int) -> bool:
        """Whether an input's axis may be of another length in each pass."""
        return not isinstance(self._shapes[name][axis], int)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return some outputs of one pass; inputs that the graph has no use for are passed over."""
        given = {name: array for name, array in inputs.items() if name in self._shapes}
        results: list[NDArray[np.float32]] = self._session.run(list(outputs), given)
        return results
