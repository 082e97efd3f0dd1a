"""The models as callers see them: names resolved, spaces looked up, limits filled in.

Follows what the engine announces; knows nothing of how a model computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tectum.v1 import errors_pb2, model_pb2
from tectum_server.worker.durations import duration
from tectum_server.worker.failure import Failure
from tectum_server.worker.jobs import Engine, ModelEntry
from tectum_server.worker.metrics import FrontMetrics
from tectum_server.worker.settings import WorkerSettings

__all__ = ["Catalogue", "ServedModel"]

_STATES = {
    "loading": model_pb2.MODEL_STATE_LOADING,
    "ready": model_pb2.MODEL_STATE_READY,
    "failed": model_pb2.MODEL_STATE_FAILED,
    "evicted": model_pb2.MODEL_STATE_EVICTED,
}
_SOONEST, _LATEST = 0.1, 30.0
"""Seconds within which who asked for a model that is being loaded is told to come back."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model of the worker's."""

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
    """Every model that serves, has made room, or could not be loaded.

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
        self._listeners: list[Callable[[Mapping[str, bool]], None]] = []
        engine.on_change(self._refresh)
        self._refresh()

    def on_change(self, listener: Callable[[Mapping[str, bool]], None]) -> None:
        """Call `listener` with `statuses`, now and whenever they change."""
        self._listeners.append(listener)
        listener(self.statuses)

    @property
    def statuses(self) -> Mapping[str, bool]:
        """Whether each model can be asked, by `name` and by `name@version`.

        One that has made room can be: it is loaded for who asks. A version that was rejected
        cannot, whatever serves in its place.
        """
        found = dict[str, bool]()
        for name, model in self._served.items():
            found[name] = model.entry.state != "failed"
            if model.entry.version:
                found[f"{name}@{model.entry.version}"] = found[name]
            if model.entry.rejection is not None and model.entry.rejection.version:
                found[f"{name}@{model.entry.rejection.version}"] = False
        return found

    def all(self) -> list[ServedModel]:
        """The default model first, then by name."""
        return sorted(self._served.values(), key=lambda m: (not m.entry.default, m.entry.name))

    def serving(self, wanted: str, field: str = "options.model") -> ServedModel:
        """The model a request means, in memory; one that has made room is brought back.

        Args:
            wanted, field: as in `find`.

        Raises:
            Failure: what `find` raises; MODEL_NOT_FOUND if it could not be loaded, MODEL_LOADING
                if it has made room.
        """
        model = self.find(wanted, field)
        entry = model.entry
        if entry.state == "ready":
            return model
        if entry.state == "failed":
            why = entry.rejection.why if entry.rejection is not None else "its bundle is gone"
            raise Failure(
                errors_pb2.ERROR_REASON_MODEL_NOT_FOUND,
                f"{entry.name} is not loaded, for it was rejected: {why}",
                field,
            )
        self._engine.want(entry.name)
        raise Failure(
            errors_pb2.ERROR_REASON_MODEL_LOADING,
            f"{entry.name} had made room for another model and is being loaded again",
            retry_after=min(max(entry.load_seconds, _SOONEST), _LATEST),
        )

    def find(self, wanted: str, field: str = "options.model") -> ServedModel:
        """The model that is meant, in whatever state.

        Args:
            wanted: `name`, `name@version` or `@version`; without a name, the default.
            field: where the request said so.

        Raises:
            Failure: ENGINE_UNAVAILABLE while nothing serves; MODEL_NOT_FOUND.
        """
        if not self._served:
            raise Failure(
                errors_pb2.ERROR_REASON_ENGINE_UNAVAILABLE,
                "the engine is starting, being restarted, or not to be heard of",
                retry_after=self._engine.back_in,
            )
        name, _, version = wanted.partition("@")
        served = self._served.get(name) if name else self._default()
        if served is None or (version and served.entry.version != version):
            known = ", ".join(
                f"{m.entry.name}@{m.entry.version}" for m in self.all() if m.entry.version
            )
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
        if now is None or now.entry.state != "ready":
            return False
        return now.entry.version == model.entry.version

    def _refresh(self) -> None:
        self._served = {
            name: ServedModel(entry, self._describe(entry))
            for name, entry in self._engine.models.items()
        }
        serves = {
            (entry.name, entry.version, space_id)
            for entry in self._engine.models.values()
            if entry.state == "ready"
            for space_id in entry.spaces.values()
        }
        self._metrics.model_info.tell(serves)
        for listener in self._listeners:
            listener(self.statuses)

    def _describe(self, entry: ModelEntry) -> model_pb2.Model:
        description = model_pb2.Model.FromString(entry.description)
        description.name, description.version = entry.name, entry.version
        description.state = _STATES[entry.state]
        description.default_model = entry.default
        description.memory_bytes = entry.memory_bytes
        if entry.rejection is not None:
            description.rejection.version = entry.rejection.version
            description.rejection.why = entry.rejection.why
            description.rejection.rejected_at.FromNanoseconds(int(entry.rejection.at * 1e9))
            if entry.state == "failed":
                description.failure = entry.rejection.why
        description.limits.CopyFrom(self.limits)
        return description
