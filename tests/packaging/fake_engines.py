"""Executables called docker, podman or buildah that only write down what they were asked."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.checkout import ROOT

BASH = shutil.which("bash") or "/bin/bash"
PROGRAM = """#!{bash}
printf '%s\\n' "${{0##*/}} $*" >> '{log}'
[ "$1" != '{fails}' ] || exit 7
case "$1 ${{2:-}}" in
    "image inspect") echo 1305000000 ;;
    "images --format") echo '1.31 GB' ;;
esac
"""


class Engines:
    """A folder of such engines; on the path are they, the shell, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "bin"
        self.folder.mkdir()
        (self.folder / "bash").symlink_to(BASH)
        self.log = folder / "log"

    def add(self, name: str, fails: str = "nothing") -> Path:
        """One more engine; the command that `fails` ends with 7."""
        path = self.folder / name
        path.write_text(PROGRAM.format(bash=BASH, log=self.log, fails=fails), encoding="utf-8")
        path.chmod(0o755)
        return path

    def run(self, *command: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command that finds these engines only."""
        return subprocess.run(
            [str(part) for part in command],
            env={"PATH": str(self.folder), **environment},
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def images(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run scripts/images.sh."""
        return self.run(BASH, "scripts/images.sh", *arguments, **environment)

    def asked(self, *verbs: str) -> Sequence[str]:
        """What the engines were asked, in order; only those verbs if any are named."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return [line for line in lines if not verbs or line.split()[1] in verbs]
