"""`precision: auto`: which numerics are fastest here and still reproduce the golden outputs.

They are timed as they would serve, by recorded graphs where those are wanted and the device has
such: what it takes to launch kernels would hide all else. Timed once for a kind of host and a shape
of model, and kept, so that the next start need not, and replicas that share the cache, or were
given it with their image, agree. What is kept is how fast each is: a bundle whose weights the first
of the order does not suit is served in the next. What does not run for want of a compiler or a
module is kept as well, until there is one; what fails for another reason is tried at the next
start, alone.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import math
import os
import platform
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import numpy as np
import torch

from tectum_core.bundle import Bundle, Part
from tectum_core.caches import user_cache
from tectum_core.golden import GoldenMismatch, check_golden
from tectum_core.launching.faults import device_lost
from tectum_core.numerics import REFERENCE, Numerics
from tectum_core.predictor import Predictor
from tectum_server.worker.engine.models.graphs import recorded
from tectum_server.worker.engine.models.lacking import is_lacking, what_lacks

__all__ = ["CANDIDATES", "Choice", "Tried", "choose", "keep_compiled", "kind_of_host"]

_log = logging.getLogger(__name__)

CANDIDATES = (
    REFERENCE,
    Numerics("float32", compiled=True),
    Numerics("bfloat16"),
    Numerics("bfloat16", compiled=True),
)
"""The simplest first."""
_NARROW = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
_WORTH = 1.1
"""So many times faster something has to be than what is simpler, or else noise would decide."""
_ROUNDS, _BATCH = 5, 8
"""Of each, in turns; the largest batch that is timed."""


class Tried(msgspec.Struct, frozen=True):
    """What came of one candidate."""

    numerics: Numerics
    speedup: float
    """Over float32 eager, by the geometric mean over operations and batch sizes; 0: it fails."""
    min_cosine: float = 0.0
    """Of any golden output of the bundle that it was tried with; 0: they were not reproduced."""
    why: str = ""
    """Why it does not run. Empty: it does."""
    lacks: str = ""
    """What there must be for it to run. Empty: nothing, or nobody knows."""

    @property
    def lasts(self) -> bool:
        """Whether the same would come of it now."""
        return is_lacking(self.lacks) if self.lacks else not self.why


class Choice(msgspec.Struct, frozen=True):
    """All that was tried, in the order in which it was."""

    host: str
    """`kind_of_host`."""
    tried: tuple[Tried, ...]

    def order(self) -> list[Numerics]:
        """What to serve in, the best first; the reference is the last at the latest.

        Something faster goes before something simpler only if it is faster by a tenth.
        """
        sound = [one for one in self.tried if not one.why]
        order = list[Numerics]()
        while sound:
            best = max(one.speedup for one in sound)
            chosen = next(one for one in sound if one.speedup * _WORTH >= best)
            sound.remove(chosen)
            order.append(chosen.numerics)
            if order[-1] == REFERENCE:
                break
        return order if REFERENCE in order else [*order, REFERENCE]


def choose(read: Bundle, device: str, folder: Path | None = None, *, graphs: bool = True) -> Choice:
    """What to serve such a model in on such a host: as it was kept, or tried now.

    Args:
        read: the bundle; its model is moved to the device, and is otherwise left as it is.
        device: a torch device.
        folder: where choices are kept; None: in the user's cache.
        graphs: whether it would serve by recorded graphs where the device has such.

    Raises:
        GoldenMismatch: not even the reference reproduces this bundle, and nothing is kept.
    """
    host = kind_of_host(device, graphs)
    path = (folder or user_cache("numerics")) / f"{_digest(host, read)}.json"
    known = {one.numerics: one for one in _kept(path) if one.lasts}
    if all(numerics in known for numerics in CANDIDATES):
        return Choice(host, tuple(known[numerics] for numerics in CANDIDATES))
    choice = Choice(host, tuple(_try_all(read, device, known, graphs)))
    _keep(path, Choice(host, tuple(one for one in choice.tried if one.lasts)))
    return choice


def _kept(path: Path) -> tuple[Tried, ...]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Choice).tried
    except (OSError, msgspec.MsgspecError):
        return ()  # there is none, or it is none


def _keep(path: Path, choice: Choice) -> None:
    draft = path.with_name(f".{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(choice), indent=2))
        draft.replace(path)
    except OSError as error:
        _tell_that_nothing_is_kept(path.parent.parent, error.strerror or str(error))


@functools.lru_cache(maxsize=8)  # once: models are many
def _tell_that_nothing_is_kept(folder: Path, reason: str) -> None:
    """A root that is read-only, say, and no folder beside it."""
    _log.warning(
        "nothing can be kept: numerics are tried, and models compiled, anew at every start; "
        "XDG_CACHE_HOME may name a folder that outlasts the worker and can be written",
        extra={"folder": str(folder), "reason": reason},
    )


def kind_of_host(device: str, graphs: bool = True) -> str:
    """What decides how fast numerics are: the processor, its threads or graphs, and torch."""
    torch_device = torch.device(device)
    if torch_device.type == "cuda":
        kind = torch.cuda.get_device_name(torch_device) + (", graphs" if graphs else "")
    else:
        kind = f"{_processor()}, {torch.get_num_threads()} threads"
    return f"{kind}, torch {torch.__version__}"


def keep_compiled() -> None:
    """Let torch keep what it compiles where the next start finds it, unless it is told otherwise.

    And compile here, not in a pool of processes that this one would have to see to.
    """
    folder = user_cache("compiled")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass  # it can be written
    except OSError as error:  # torch has a temporary folder of its own
        _tell_that_nothing_is_kept(folder.parent, error.strerror or str(error))
    else:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")


def _try_all(
    read: Bundle, device: str, known: Mapping[Numerics, Tried], graphs: bool
) -> Iterator[Tried]:
    """Each candidate's speed beside the reference's, in turns, so that both meet the same host.

    What is known already is not tried.
    """
    keep_compiled()
    reference = Predictor(read, device)
    check_golden(reference)
    with recorded(reference, _BATCH) if graphs else contextlib.nullcontext():
        for numerics in CANDIDATES:
            if numerics in known:
                yield known[numerics]
                continue
            try:
                predictor = Predictor(read, device, numerics)
                with recorded(predictor, _BATCH) if graphs else contextlib.nullcontext():
                    cosine = _cosine(predictor)
                    tried = Tried(numerics, _speedup(predictor, reference), cosine)
            except Exception as error:  # no compiler, or one that fails: as many kinds as there are
                if device_lost(error, reference.device):
                    raise
                why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                tried = Tried(numerics, 0.0, why=why, lacks=what_lacks(error))
            extra = {"model": read.name, "numerics": str(numerics), "speedup": tried.speedup}
            _log.info("numerics tried", extra={**extra, "reason": tried.why, "lacks": tried.lacks})
            yield tried


def _cosine(predictor: Predictor) -> float:
    """How close it comes to this bundle's golden outputs; other weights may suit it better."""
    try:
        return check_golden(predictor).min_cosine
    except GoldenMismatch:
        return 0.0


def _speedup(predictor: Predictor, reference: Predictor) -> float:
    """By how much it is faster."""
    if predictor.numerics == REFERENCE:
        return 1.0
    gains = list[float]()
    for count in (1, _BATCH):
        both = [_Work(one, count) for one in (predictor, reference)]
        for work in both:
            work.run()  # what is compiled, is compiled now
        times = [[work.timed() for work in both] for _ in range(_ROUNDS)]
        fast, slow = (min(column) for column in zip(*times, strict=True))
        gains.append(slow / fast)
    return math.exp(sum(map(math.log, gains)) / len(gains))


class _Work:
    """What a predictor's trunks are timed at: all that it has, so many at once."""

    def __init__(self, predictor: Predictor, count: int) -> None:
        side, video = predictor.config.images.size, predictor.config.model.video
        self._predictor, self._count = predictor, count
        self._image = np.full((side, side, 3), 127, np.uint8)
        self._clip = None if video is None else np.stack([self._image] * video.frames)
        learnt = predictor.config.training.learnt
        parts: tuple[Part, ...] = ("vision", "video", "joint")
        self._parts = {part for part in parts if learnt(part)}

    def run(self) -> None:
        predictor = self._predictor
        if "vision" in self._parts:
            predictor.embed_images([self._image] * self._count, "tokens")
        if "joint" in self._parts and predictor.model.joint is not None:
            predictor.embed_texts(["open the drawer"] * self._count)
        if "video" in self._parts and self._clip is not None:
            predictor.embed_clips([self._clip] * self._count, "tokens")

    def timed(self) -> float:
        started = time.perf_counter()
        self.run()
        return time.perf_counter() - started


def _digest(host: str, read: Bundle) -> str:
    shape = {"host": host, "model": read.config.model.model_dump(mode="json")}
    return hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]


def _processor() -> str:
    """Its name, and which instructions for narrow types it has."""
    told = dict[str, str]()
    with contextlib.suppress(OSError):  # no Linux
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        told = dict(line.split("\t: ", 1) for line in lines if "\t: " in line)
    flags = set(told.get("flags", "").split())
    name = told.get("model name", platform.machine())
    return " ".join([name, *(flag for flag in _NARROW if flag in flags)])
