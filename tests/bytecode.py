"""Compiles the product and the tests before a run with pytest-xdist, on all processors, and only what has changed.

Otherwise each process compiles all of it: on a new checkout that is most of what they do in their first minute.
"""

import compileall
import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

# pytest rewrites assertions when it compiles tests, and offers no other way to have it done than to import them.
from _pytest.assertion import rewrite

_ROOT = Path(__file__).parents[1]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile, in the process that then starts the others."""
    if session.config.getoption("numprocesses", None) and not sys.dont_write_bytecode:
        compile_all([*_ROOT.glob("src/**/*.py"), *_ROOT.glob("tests/**/*.py")], session.config)


def compile_all(files: Iterable[Path], config: pytest.Config) -> None:
    """Compile these modules, tests as pytest does. What can't be compiled fails when it is imported."""
    # The largest first, so that all processors end at the same time.
    left = sorted(files, key=lambda file: file.stat().st_size, reverse=True)
    processors = os.cpu_count() or 1
    children = []
    for number in range(processors):
        # Forked, since the configuration can't be sent to another process.
        child = os.fork()
        if child == 0:
            try:
                for file in left[number::processors]:
                    with contextlib.suppress(Exception):
                        _compile(file, config)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def _compile(file: Path, config: pytest.Config) -> None:
    if not (file.match("test_*.py") or file.name == "conftest.py"):
        compileall.compile_file(file, quiet=2)
        return
    folder = rewrite.get_cache_dir(file)
    compiled = folder / f"{file.stem}{rewrite.PYC_TAIL}"
    if rewrite.try_makedirs(folder) and rewrite._read_pyc(file, compiled) is None:
        source_hash, code = rewrite._rewrite_test(file, config)
        rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, source_hash, compiled)
