import subprocess
import sys

import msgspec
import pytest

from foretell.kit import structs


class Inner(msgspec.Struct):
    number: int


class Outer(msgspec.Struct):
    inner: list[Inner] = []


def test_values_and_bodies_become_structs() -> None:
    assert structs.convert({"inner": [{"number": 1}]}, Outer) == Outer([Inner(1)])
    assert structs.decode(b'{"inner": [{"number": 1}]}', Outer) == Outer([Inner(1)])
    assert structs.convert(None, Outer | None) is None
    with pytest.raises(msgspec.ValidationError, match=r"inner\[0\]\.number"):
        structs.convert({"inner": [{"number": "1"}]}, Outer)
    with pytest.raises(msgspec.DecodeError):
        structs.decode(b"{", Outer)


# With msgspec's own functions in place of ours, this crashes at the first type.
_THREADS = """
import sys, threading
from typing import Optional
import msgspec
from foretell.kit import structs
sys.setswitchinterval(1e-6)
for turn in range(100):
    inner = [msgspec.defstruct(f"Inner{n}", [(f"f{i}", Optional[int], None) for i in range(20)]) for n in range(6)]
    outer = msgspec.defstruct("Outer", [(f"x{n}", list[each], []) for n, each in enumerate(inner)])
    together = threading.Barrier(4)
    def use():
        together.wait()
        assert structs.convert({f"x{n}": [{"f1": 1}] for n in range(6)}, outer).x5[0].f1 == 1
    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("done")
"""


def test_threads_may_use_a_type_for_the_first_time_together() -> None:
    ended = subprocess.run([sys.executable, "-c", _THREADS], capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
