#!/usr/bin/env bash
# Rewrites the tables of docs/recipes.md from the classes that check recipes; what stands above their
# mark is left as it is. A test says when that is due.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}

"$python" - docs/recipes.md <<'EOF'
import sys
from pathlib import Path

from tectum_train.recipe.reference import renewed

document = Path(sys.argv[1])
document.write_text(renewed(document.read_text(encoding="utf-8")), encoding="utf-8")
EOF
