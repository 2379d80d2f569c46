"""What is compiled before a run."""

import importlib.util
from pathlib import Path

import pytest
from _pytest.assertion import rewrite
from tests.bytecode import compile_all


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_tests_are_compiled_as_pytest_does_it_and_modules_as_python_does(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    test, module, wrong = tmp_path / "test_some.py", tmp_path / "some.py", tmp_path / "test_wrong.py"
    test.write_text("def test():\n    assert 1 == 2\n")
    module.write_text("NUMBER = 1\n")
    wrong.write_text("def test(:\n")
    compile_all([wrong, test, module], request.config)
    code = rewrite._read_pyc(test, tmp_path / "__pycache__" / f"test_some{rewrite.PYC_TAIL}")
    assert code is not None
    # What explains a failed assertion is in it.
    assert "@pytest_ar" in code.co_names
    assert Path(importlib.util.cache_from_source(str(module))).exists()
    assert len(list((tmp_path / "__pycache__").iterdir())) == 2
