"""What a result must be quoted with: machine, commit, date, command."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch

from tectum_train.engine.provenance import commit_of

__all__ = ["PEAK_TFLOPS", "commit", "heading", "machine", "today"]


PEAK_TFLOPS = {
    "NVIDIA H100 80GB HBM3": 989.0,
    "NVIDIA H200": 989.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA H100 PCIe": 756.0,
}
"""Dense bfloat16 by the cards' data sheets, as torch calls them."""


def heading(title: str) -> str:
    """A Markdown heading and a line that says where the numbers below come from."""
    command = shlex.join(["python", *sys.argv])
    return f"# {title}\n\n{machine()}; commit {commit()}, {today()}; `{command}`\n"


def machine() -> str:
    """Processor, cores, accelerator, and the versions that matter."""
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{_processor()}, {os.cpu_count()} cores, {accelerator}; torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


def commit() -> str:
    """Of the checkout, marked where its files differ from it."""
    return commit_of(Path(__file__)) or "unknown"


def today() -> str:
    """The date, UTC."""
    return f"{datetime.now(UTC):%Y-%m-%d}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
