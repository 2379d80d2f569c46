"""Processor time of programs that work in children of their own."""

import os
import subprocess
import sys

import psutil

from foretell.local.measuring import Measured, _family_cpu_s

_CHILD = "import time\nwhile time.process_time() < 0.3: pass\nprint('used', flush=True)\ninput()"
_PARENT = (
    "import subprocess, sys\n"
    f"child = subprocess.Popen([sys.executable, '-c', {_CHILD!r}])\n"
    "child.wait()\n"
    "print('ended', flush=True)\n"
    "sys.stdin.read()\n"
)


def test_what_a_child_has_used_still_counts_when_it_has_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        family = psutil.Process(parent.pid)
        assert parent.stdout.readline() == "used\n"
        before = _family_cpu_s(family)
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "ended\n"
        # It had used 0.3 s, which must not be missing now; the system counts in hundredths.
        assert _family_cpu_s(family) > before - 0.1


async def test_a_process_that_ends_meanwhile_is_left_out() -> None:
    async def nothing_queued() -> int:
        return 0

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as ending:
        gone = ending.pid
        measured = Measured("http://nobody", "", {}, nothing_queued, {"lasting": os.getpid(), "ending": gone})
        before = measured._cpu_s()
        assert before.keys() == {"lasting", "ending"}
        ending.kill()
    assert measured._use_since(before, accepted=1).keys() == {"lasting"}
    assert Measured("http://nobody", "", {}, nothing_queued, {"ending": gone})._cpu_s() == {}
