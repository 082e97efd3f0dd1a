"""Which vectors a request wants, and the engine's answers in that form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from tectum.v1 import call_pb2, embed_pb2, errors_pb2, model_pb2
from tectum_server.worker.failure import Failure
from tectum_server.worker.front.call import Call
from tectum_server.worker.front.messages.wire import checked_data_type, embedding, vector_name
from tectum_server.worker.front.status import item_error
from tectum_server.worker.jobs import ItemOutput, VectorName

__all__ = ["VectorRequest"]


@dataclass(frozen=True, slots=True)
class VectorRequest:
    """VectorOptions, checked against the model."""

    vector: VectorName
    """What the engine is asked for."""
    space: str
    """The bundle's name of the vectors' space."""
    data_type: int
    """FLOAT32, FLOAT16 or INT8."""
    dimensions: int
    """Keep so many; 0: all."""

    @classmethod
    def of(
        cls, options: call_pb2.VectorOptions, call: Call, prefix: str = "", beside: str = ""
    ) -> Self:
        """Read the options and fix the answer's space.

        Args:
            options: the request's.
            call: whose model and expected spaces count.
            prefix: of the space's name, `clip_` for clips.
            beside: name of another space that the answer has vectors of; empty: there is none.

        Raises:
            Failure: a value out of range, a missing capability, or a space mismatch.
        """
        spaces = [
            name.removeprefix(prefix)
            for name in call.served.entry.spaces
            if name.startswith(prefix)
        ]
        vector = vector_name(options, spaces, "vector")
        space = f"{prefix}{vector}"
        call.answer_in(space, *([beside] if beside else []))
        if options.dimensions:
            _check_truncation(options.dimensions, call.served.describe(space))
        return cls(
            vector=vector,
            space=space,
            data_type=checked_data_type(options.data_type, "vector.data_type"),
            dimensions=options.dimensions,
        )

    def embedding(self, call: Call, output: ItemOutput) -> call_pb2.Embedding:
        """One item's vector."""
        space_id = call.served.space(self.space)
        asked = "vector.data_type"
        found = embedding(output.arrays[0], space_id, self.data_type, self.dimensions, asked)
        if len(output.arrays) > 1:  # a text's
            found.tokens, found.truncated = int(output.arrays[1][0]), bool(output.arrays[1][1])
        return found

    def results(
        self, call: Call, outputs: Sequence[ItemOutput | Failure], field: str
    ) -> list[embed_pb2.EmbedResult]:
        """Every item's vector, or why it has none."""
        return [
            embed_pb2.EmbedResult(error=item_error(output, f"{field}[{index}]"))
            if isinstance(output, Failure)
            else embed_pb2.EmbedResult(embedding=self.embedding(call, output))
            for index, output in enumerate(outputs)
        ]


def _check_truncation(dimensions: int, space: model_pb2.Space) -> None:
    if dimensions not in space.truncations:
        known = ", ".join(map(str, space.truncations)) or "none"
        raise Failure(
            errors_pb2.ERROR_REASON_CAPABILITY_MISSING,
            f"the model was not trained for {dimensions} dimensions; it was for: {known}",
            "vector.dimensions",
        )
