"""Names of fields: from the contract's, which the worker's errors use, to those of REST.

REST is flatter than the contract and says its units, so a caller would look in vain for
`options.model` or `images[3].encoded` in what it sent.
"""

import re
from collections.abc import Sequence

_RENAMED = (
    (re.compile(r"^options\.expected_space_ids.*"), "X-Tectum-Expected-Space"),
    (re.compile(r"^expected_spaces.*"), "X-Tectum-Expected-Space"),
    (re.compile(r"^options\.priority$"), "X-Tectum-Priority"),
    (re.compile(r"^timeout$"), "X-Tectum-Deadline-Ms"),
    (re.compile(r"^target$"), "body"),
    (re.compile(r"^(options|vector)\."), ""),
    (re.compile(r"\.(encoded|raw)\b.*"), ""),
    (re.compile(r"^clips?(\[\d+\])?\.frame_interval$"), "frame_interval_ms"),
    (re.compile(r"^actions\.step_interval$"), "step_interval_ms"),
    (re.compile(r"^(text|actions)\.\1\b"), r"\1"),
    (re.compile(r"^captured_at(\[\d+\])$"), r"frames\1.captured_at_ms"),
    (re.compile(r"\b(interval|frame_interval|step_interval|captured_at)$"), r"\1_ms"),
)
_NUMBER = r"\d[\d.]*(?:e[+-]?\d+)?"
_SECONDS = re.compile(rf"({_NUMBER}(?: (?:±|to) {_NUMBER})*) s\b")


def rest_words(message: str, fields: Sequence[str]) -> str:
    """What is said of these of the contract's fields, `field: …`, in REST's words and units."""
    for field in fields:
        if field:
            told = rf"(?<![\w.\]]){re.escape(field)}(?=:)"
            message = re.sub(told, rest_field(field).replace("\\", r"\\"), message)
    if any(rest_field(field).endswith("_ms") for field in fields):
        message = _SECONDS.sub(_milliseconds, message)
    return message


def _milliseconds(seconds: re.Match[str]) -> str:
    """`0.045 to 0.055 s` as `45 to 55 ms`."""
    return re.sub(_NUMBER, lambda found: f"{1000 * float(found[0]):g}", seconds[1]) + " ms"


def rest_field(path: str) -> str:
    """Where a caller finds the field in its request; unchanged where both say the same."""
    for pattern, name in _RENAMED:
        path = pattern.sub(name, path)
    return path
