"""What docs/settings.md says of settings."""

from __future__ import annotations

import re

from tests.checkout import ROOT

__all__ = ["documented"]


def documented(names: str) -> dict[str, tuple[str, str]]:
    """Default and meaning, as documented, of every variable that `names` matches."""
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `({names})` \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    return {variable: (default, " ".join(meaning.split())) for variable, default, meaning in rows}
