"""Which models are in memory, which have made room, and which could not come.

Pure bookkeeping: no torch, no clock and no tasks. What is loaded and drained, `keeping` sees to.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import msgspec

from tectum_server.worker.engine.models.loading import Loaded
from tectum_server.worker.jobs import ModelEntry, Rejection

__all__ = ["NoRoom", "Shelf", "Slot"]


class NoRoom(ValueError):
    """A model does not fit beside what must stay; says what takes how much."""


@dataclass(slots=True, eq=False)
class Slot:
    """What one name stands for."""

    name: str
    loaded: Loaded | None = None
    """None: not in memory."""
    entry: ModelEntry | None = None
    """As it was when it was loaded last; None: it never was."""
    coming: bool = False
    """Whether it is being loaded again after it had made room."""
    failed: bool = False
    """Whether it was to be loaded and could not, and nothing else of this name serves."""
    rejection: Rejection | None = None
    """Of the version that should serve in place of this one, or at all."""
    wanted: str = ""
    """What a next engine should load, `name@version`."""
    used: int = 0
    """Grows with every use, over all slots."""
    kept_until: float = 0.0
    """Monotonic seconds until which whoever asked for it back is expected; 0: nobody is."""


class Shelf:
    """The slots by name.

    Args:
        capacity: bytes that weights and graphs may take together; None: as many as they do.
    """

    def __init__(self, capacity: int | None) -> None:
        self.default = ""
        self._capacity = capacity
        self._slots: dict[str, Slot] = {}
        self._uses = itertools.count(1)

    @property
    def entries(self) -> dict[str, ModelEntry]:
        """Every name as the fronts are told it."""
        return {name: self._announced(slot) for name, slot in self._slots.items()}

    @property
    def wanted(self) -> tuple[str, ...]:
        """What a next engine should load: the default, then what was used last at the last."""
        slots = sorted(self._slots.values(), key=lambda s: (s.name != self.default, s.used))
        return tuple(slot.wanted for slot in slots)

    @property
    def serves(self) -> bool:
        """Whether anything is in memory."""
        return any(slot.loaded for slot in self._slots.values())

    def find(self, name: str) -> Slot | None:
        """The slot of a name."""
        return self._slots.get(name)

    def touch(self, slot: Slot) -> None:
        """It is being used."""
        slot.used, slot.kept_until = next(self._uses), 0.0

    def would_disappoint(self, name: str, needed: int, now: float) -> bool:
        """Whether room for `name` could only be made by who waits for whoever asked for it back."""
        try:
            victims = self.to_make_room(name, needed)
        except NoRoom:
            return False
        return any(self._slots[victim].kept_until > now for victim in victims)

    def has_room(self, name: str, needed: int) -> bool:
        """Whether a version of `name` fits in and nobody has to go for it."""
        try:
            return not self.to_make_room(name, needed)
        except NoRoom:
            return False

    def put(self, fresh: Loaded) -> Loaded | None:
        """Let a model serve; gives the one in whose place it does."""
        name, version = fresh.entry.name, fresh.entry.version
        slot = self._slots.setdefault(name, Slot(name))
        old, slot.loaded, slot.entry = slot.loaded, fresh, fresh.entry
        slot.coming, slot.failed, slot.rejection = False, False, None
        slot.wanted = f"{name}@{version}"
        self.touch(slot)
        return old

    def reject(self, name: str, rejection: Rejection) -> None:
        """A version could not be loaded; what serves, or has made room, stays what it is."""
        slot = self._slots.setdefault(name, Slot(name))
        slot.rejection = rejection
        if slot.loaded is None and slot.entry is None:
            slot.failed = True
            slot.wanted = f"{name}@{rejection.version}" if rejection.version else name

    def evict(self, name: str) -> Loaded | None:
        """Take a model out of memory; its name stays."""
        slot = self._slots[name]
        gone, slot.loaded = slot.loaded, None
        return gone

    def drop(self, name: str) -> None:
        """There is no such name any more."""
        del self._slots[name]

    def to_make_room(self, name: str, needed: int) -> list[str]:
        """Whom to evict so that a version of `name` fits in; the longest unused go first.

        The default never does, nor does an older version of the same name: it serves until then.

        Raises:
            NoRoom: it does not fit whoever goes.
        """
        if self._capacity is None:
            return []
        resident = [slot for slot in self._slots.values() if slot.loaded]
        free = self._capacity - sum(self._announced(slot).memory_bytes for slot in resident)
        movable = [slot for slot in resident if slot.name not in (name, self.default)]
        victims = list[str]()
        for slot in sorted(movable, key=_last_to_go):
            if free >= needed:
                break
            victims.append(slot.name)
            free += self._announced(slot).memory_bytes
        if free < needed:
            words = f"{name} takes {needed} bytes; model_memory_bytes is {self._capacity}"
            stay = ", ".join(slot.name for slot in resident if slot not in movable)
            raise NoRoom(f"{words}, and {stay} must stay in memory meanwhile" if stay else words)
        return victims

    def _announced(self, slot: Slot) -> ModelEntry:
        entry = slot.entry or ModelEntry(slot.name, "", "failed", False, b"")
        state = "ready" if slot.loaded else "loading" if slot.coming else "evicted"
        return msgspec.structs.replace(
            entry,
            state="failed" if slot.failed else state,
            default=slot.name == self.default,
            memory_bytes=entry.memory_bytes if slot.loaded else 0,
            rejection=slot.rejection,
        )


def _last_to_go(slot: Slot) -> tuple[bool, int]:
    """A sort key: who is asked nothing, or will be, goes before who is; then the longest unused."""
    asked = slot.kept_until > 0 or bool(slot.loaded and slot.loaded.in_flight.count)
    return asked, slot.used
