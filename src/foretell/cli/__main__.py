"""`python -m foretell.cli` is `foretell`."""

from foretell.cli.main import run

run()
