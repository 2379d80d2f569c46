"""Fixtures of every test: the services that they need, one module each."""

import functools
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, settings

pytest_plugins = [
    "tests.scratch",
    "tests.bytecode",
    "tests.folder_times",
    "tests.order",
    *(f"tests.{path.stem}" for path in sorted(Path(__file__).parent.glob("services_*.py"))),
]

# A busy machine is slow, and that is no mistake of ours: no test asserts a time.
settings.register_profile("foretell", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("foretell")


def _our_settings() -> dict[str, str]:
    """The product's settings in the environment; not what tells the tests where servers are and how long to go on."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("FORETELL_") and not name.startswith(("FORETELL_TEST_", "FORETELL_FAULT_"))
    }


# Where the tests run in the background of a shell script, Ctrl-C is ignored, also by the processes that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# To read the certificates of all authorities, for each client anew, took a twelfth of the integration tests' time.
httpx._transports.default.create_ssl_context = functools.cache(httpx.create_ssl_context)

# What somebody has set for an installation of their own is not meant for the tests.
for _name in _our_settings():
    del os.environ[_name]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Keep the garbage collector from going through the modules and thousands of tests, which stay, again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(autouse=True)
def _logs_are_as_new() -> None:
    """Undo what an earlier test of this process did to the logs: the command line, for one, silences them.

    Tracebacks are plain: to show every variable of every frame takes seconds.
    """
    structlog.reset_defaults()
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


@pytest.fixture(autouse=True)
def _settings_are_left_alone() -> Iterator[None]:
    """Fail a test that leaves settings behind in the environment, where they would mislead the next one."""
    yield
    left = _our_settings()
    for name in left:
        del os.environ[name]
    assert left == {}, "left in the environment"
