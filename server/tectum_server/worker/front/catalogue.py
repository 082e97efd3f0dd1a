"""The models as callers see them: names resolved, spaces looked up, limits filled in.

Follows what the engine announces; knows nothing of how a model computes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tectum.v1 import errors_pb2, model_pb2
from tectum_server.worker.durations import duration
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import Engine, ModelEntry
from tectum_server.worker.metrics import FrontMetrics
from tectum_server.worker.settings import WorkerSettings

__all__ = ["Catalogue", "ServedModel"]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model that serves."""

    entry: ModelEntry
    """As the engine announced it."""
    description: model_pb2.Model
    """As ModelService tells it, without its card."""

    def space(self, name: str) -> str:
        """The id of one of the bundle's spaces.

        Raises:
            Failure: CAPABILITY_MISSING.
        """
        found = self.entry.spaces.get(name)
        if found is None:
            raise Failure(
                errors_pb2.ERROR_REASON_CAPABILITY_MISSING,
                f"{self.entry.name} has no {name} vectors; it has {', '.join(self.entry.spaces)}",
            )
        return found

    def describe(self, name: str) -> model_pb2.Space:
        """One of the bundle's spaces as ModelService tells it.

        Raises:
            Failure: CAPABILITY_MISSING.
        """
        space_id = self.space(name)
        return next(s for s in self.description.spaces if s.space_id == space_id)

    def require(self, capability: model_pb2.Capability.ValueType) -> None:
        """Let pass what the model can do.

        Raises:
            Failure: CAPABILITY_MISSING.
        """
        if capability not in self.description.capabilities:
            name = model_pb2.Capability.Name(capability).removeprefix("CAPABILITY_")
            raise Failure(
                errors_pb2.ERROR_REASON_CAPABILITY_MISSING,
                f"{self.entry.name} cannot {name.lower().replace('_', ' ')}",
            )


class Catalogue:
    """Every model that serves.

    Args:
        engine: announces them.
        settings: the worker's limits.
        metrics: where `tectum_model_info` lives.
    """

    def __init__(self, engine: Engine, settings: WorkerSettings, metrics: FrontMetrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self.limits = model_pb2.Limits(
            max_items=settings.max_items,
            max_message_bytes=settings.max_message_bytes,
            max_pixels=settings.max_pixels,
            max_text_bytes=settings.max_text_bytes,
            max_queued_items=settings.max_queued_items,
            control_deadline=duration(settings.control_deadline),
            interactive_deadline=duration(settings.interactive_deadline),
            bulk_deadline=duration(settings.bulk_deadline),
        )
        self._served: dict[str, ServedModel] = {}
        self._listeners: list[Callable[[set[str]], None]] = []
        self._told: set[tuple[str, str, str]] = set()
        engine.on_change(self._refresh)
        self._refresh()

    def on_change(self, listener: Callable[[set[str]], None]) -> None:
        """Call `listener` with the names that serve, now and whenever they change."""
        self._listeners.append(listener)
        listener(set(self._served))

    def all(self) -> list[ServedModel]:
        """The default model first, then by name."""
        return sorted(self._served.values(), key=lambda m: (not m.entry.default, m.entry.name))

    def find(self, wanted: str, field: str = "options.model") -> ServedModel:
        """The model a request means.

        Args:
            wanted: `name`, `name@version` or `@version`; without a name, the default.
            field: where the request said so.

        Raises:
            Failure: ENGINE_UNAVAILABLE while nothing serves; MODEL_NOT_FOUND.
        """
        if not self._served:
            raise Failure(
                errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE,
                "the engine is starting or being restarted",
            )
        name, _, version = wanted.partition("@")
        served = self._served.get(name) if name else self._default()
        if served is None or (version and served.entry.version != version):
            known = ", ".join(f"{m.entry.name}@{m.entry.version}" for m in self.all())
            raise Failure(
                errors_pb2.ERROR_REASON_MODEL_NOT_FOUND,
                f"{repr(wanted[:80]) if name else 'the default'} is not loaded; there are: {known}",
                field,
            )
        return served

    def _default(self) -> ServedModel | None:
        """None if a new engine could not load it: another answers in other spaces."""
        first = self.all()[0]
        return first if first.entry.default else None

    def serves(self, model: ServedModel) -> bool:
        """Whether that very version still serves."""
        now = self._served.get(model.entry.name)
        return now is not None and now.entry.version == model.entry.version

    def _refresh(self) -> None:
        self._served = {
            name: ServedModel(entry, self._describe(entry))
            for name, entry in self._engine.models.items()
        }
        told = {
            (entry.name, entry.version, space_id)
            for entry in self._engine.models.values()
            for space_id in entry.spaces.values()
        }
        for labels in self._told | told:
            self._metrics.model_info.labels(*labels).set(int(labels in told))
        self._told |= told
        for listener in self._listeners:
            listener(set(self._served))

    def _describe(self, entry: ModelEntry) -> model_pb2.Model:
        description = model_pb2.Model.FromString(entry.description)
        description.default_model = entry.default
        description.limits.CopyFrom(self.limits)
        return description
