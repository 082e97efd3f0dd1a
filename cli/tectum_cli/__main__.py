"""`python -m tectum_cli` is `tectum`."""

from tectum_cli import main

main()
