"""start.py with a real `venv` and a real `pip`, in a small checkout of its own that needs no network.

To install pip is most of what it takes to make an environment, and start.py leaves it to Python: but for the tests that
ask for `real_venv`, `python -m venv` links to the files of a pip that was installed once.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "foretell"
version = "0.1"
"""

#: Builds what hatchling would: a wheel that points to `src`.
BACKEND = """
import pathlib, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "foretell-0.1-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w") as wheel:
        wheel.writestr("foretell.pth", str(pathlib.Path("src").resolve()))
        wheel.writestr("foretell-0.1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: foretell\\nVersion: 0.1\\n")
        wheel.writestr("foretell-0.1.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("foretell-0.1.dist-info/RECORD", "")
    return name
"""  # noqa: E501

#: In place of the command line: says what it was asked for.
COMMAND_LINE = """\
import sys
import dependency
print("foretell", *sys.argv[1:], "with", dependency.VERSION)
"""

#: What `python -m venv` does where this is imported at the start of Python; for `str.format`.
QUICK_VENV = """\
import os
import shutil
import sys

if sys.orig_argv[1:3] == ["-m", "venv"]:
    import venv

    class Builder(venv.EnvBuilder):
        def __init__(self, **wanted):
            super().__init__(**wanted | {{"with_pip": False}})

        def post_setup(self, context):
            version = "python%d.%d" % sys.version_info[:2]
            packages = os.path.join(context.env_dir, "lib", version, "site-packages")
            shutil.copytree({packages!r}, packages, copy_function=os.link, dirs_exist_ok=True)

    venv.EnvBuilder = Builder
"""


class Checkout:
    """A checkout that consists of start.py, what it runs, and stand-ins for all that is large."""

    def __init__(self, root: Path) -> None:
        self.root = root
        #: What runs start.py.
        self.python = sys.executable
        #: A folder from which every Python takes its `sitecustomize`.
        self.customized: Path | None = None
        self.wheels = root.with_name(root.name + "-wheels")
        self.wheels.mkdir()
        source = REPOSITORY / "src" / "foretell"
        for part in ("__init__.py", "kit/__init__.py", "kit/errors.py", "local"):
            target = root / "src" / "foretell" / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if (source / part).is_dir():
                shutil.copytree(source / part, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source / part, target)
        shutil.copy(REPOSITORY / "start.py", root)
        (root / "pyproject.toml").write_text(PYPROJECT)
        (root / "backend.py").write_text(BACKEND)
        (root / "src" / "foretell" / "cli").mkdir()
        (root / "src" / "foretell" / "cli" / "__main__.py").write_text(COMMAND_LINE)
        self.lock("1.0")

    def lock(self, version: str) -> None:
        """Write both lock files, for that version of the one package that the checkout needs."""
        runtime = self.requirement("dependency", version, f'VERSION = "{version}"\n')
        says_arguments = "import sys\nprint('pytest', *sys.argv[1:])\nsys.exit(5)\n"
        tests = self.requirement("pytest", version, "", **{"pytest/__main__.py": says_arguments})
        (self.root / "requirements.lock").write_text(runtime)
        (self.root / "requirements-dev.lock").write_text(runtime + tests)

    def requirement(self, name: str, version: str, code: str, **more: str) -> str:
        """Make a wheel, and return the lines of the lock file for it."""
        wheel = self.wheels / f"{name}-{version}-py3-none-any.whl"
        info = f"{name}-{version}.dist-info"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"{name}/__init__.py", code)
            for path, content in more.items():
                archive.writestr(path, content)
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
            archive.writestr(
                f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{info}/RECORD", "")
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        return f"{name}=={version} \\\n    --hash=sha256:{digest}\n"

    @property
    def environment(self) -> dict[str, str]:
        """Without this machine's settings of pip, and without a network for it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "FORETELL_"))}
        return {
            **kept,
            **({} if self.customized is None else {"PYTHONPATH": str(self.customized)}),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": self.wheels.as_uri(),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def popen(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Begin start.py."""
        return subprocess.Popen(
            [self.python, str(self.root / "start.py"), *arguments],
            env={**self.environment, **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.root.parent,
            start_new_session=True,
        )

    def start(self, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
        """Run start.py to its end; it never shows a traceback."""
        child = self.popen(*arguments, **more)
        out, error = child.communicate(timeout=170)
        assert "Traceback" not in error
        return subprocess.CompletedProcess(arguments, child.returncode, out, error)

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def leftovers(self) -> list[str]:
        """What of earlier environments still lies around."""
        return sorted(path.name for path in self.root.glob(".venv-*"))


@pytest.fixture(scope="module")
def quick_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `sitecustomize` makes `python -m venv` quick."""
    folder = tmp_path_factory.mktemp("quick")
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    (packages,) = folder.glob("venv/lib/python*/site-packages")
    (folder / "sitecustomize.py").write_text(QUICK_VENV.format(packages=str(packages)))
    return folder


@pytest.fixture
def checkout(request: pytest.FixtureRequest, tmp_path: Path) -> Checkout:
    root = tmp_path / "it's a check out"
    root.mkdir()
    checkout = Checkout(root)
    if "real_venv" not in request.fixturenames:
        checkout.customized = request.getfixturevalue("quick_venv")
    return checkout


@pytest.fixture
def real_venv() -> None:
    """Nothing stands in for Python's own way to make environments."""


@pytest.mark.usefixtures("real_venv")
def test_cold_start_warm_start_and_a_new_lock_file(checkout: Checkout) -> None:
    cold = checkout.start("--start", "--workers", "5")
    assert cold.returncode == 0, cold.stderr
    assert cold.stdout == "foretell up --detach --workers 5 with 1.0\n"
    assert "Installing 1 packages from requirements.lock" in cold.stderr

    # Warm: nothing is said, and pip is not even asked, so that it may be gone.
    shutil.rmtree(next(checkout.venv.glob("lib/python*/site-packages/pip")))
    warm = checkout.start("--start", PIP_FIND_LINKS="/nowhere")
    assert (warm.stdout, warm.stderr) == ("foretell up --detach with 1.0\n", "")

    checkout.lock("2.0")
    # Looking on and stopping work with what is there.
    assert checkout.start("--stop").stdout == "foretell down with 1.0\n"
    renewed = checkout.start("--start")
    assert renewed.stdout == "foretell up --detach with 2.0\n", renewed.stderr
    assert checkout.leftovers() == []


def test_the_tests_get_their_own_packages_and_give_their_exit_code_back(checkout: Checkout) -> None:
    tested = checkout.start("--test", "-k", "audit")
    assert tested.returncode == 5, tested.stderr
    assert tested.stdout.startswith("pytest -n 5 ")
    assert tested.stdout.endswith(" -k audit\n")
    # The packages of the tests hold those of the services.
    assert checkout.start("--status").stdout == "foretell status with 1.0\n"
    assert checkout.start("--start").stderr == ""


@pytest.mark.usefixtures("real_venv")
def test_what_was_broken_off_is_made_anew(checkout: Checkout) -> None:
    child = checkout.popen("--start")
    deadline = time.monotonic() + 60
    while not (checkout.venv / "pyvenv.cfg").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate()
    again = checkout.start("--start")
    assert again.stdout == "foretell up --detach with 1.0\n", again.stderr
    assert "did not come to its end; making it anew" in again.stderr
    assert checkout.leftovers() == []


def test_ctrl_c_during_the_set_up_is_no_traceback(checkout: Checkout) -> None:
    child = checkout.popen("--start")
    deadline = time.monotonic() + 60
    while not (checkout.venv / "pyvenv.cfg").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGINT)
    _, error = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Broken off." in error
    assert "Traceback" not in error
    assert not (checkout.venv / ".foretell.json").exists()


def test_an_environment_that_no_longer_works_is_made_anew(checkout: Checkout) -> None:
    assert checkout.start("--start").returncode == 0

    (checkout.venv / "bin" / "python").unlink()
    gone = checkout.start("--start")
    assert gone.stdout == "foretell up --detach with 1.0\n", gone.stderr
    assert "is gone or does not run" in gone.stderr

    stamp_file = checkout.venv / ".foretell.json"
    stamp = json.loads(stamp_file.read_text())
    stamp_file.write_text(json.dumps({**stamp, "python": "3.11.0rc1"}))
    other = checkout.start("--start")
    assert other.stdout == "foretell up --detach with 1.0\n", other.stderr
    assert "was 3.11.0rc1" in other.stderr

    lent = checkout.venv.rename(checkout.root.with_name("lent"))
    checkout.venv.symlink_to(lent)
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    moved = checkout.start("--start")
    assert moved.stdout == "foretell up --detach with 1.0\n", moved.stderr
    assert "moved or renamed" in moved.stderr
    assert (lent / "bin" / "python").exists()
    assert checkout.leftovers() == []

    # The Python of the .venv that is put away makes the new one.
    checkout.root = checkout.root.rename(checkout.root.with_name("moved-again"))
    checkout.python = str(checkout.venv / "bin" / "python")
    by_itself = checkout.start("--start")
    assert by_itself.stdout == "foretell up --detach with 1.0\n", by_itself.stderr
    assert "moved or renamed" in by_itself.stderr


def test_somebody_else_s_environment_is_used_if_complete_and_else_put_aside(checkout: Checkout) -> None:
    assert checkout.start("--start").returncode == 0
    (checkout.venv / ".foretell.json").unlink()
    complete = checkout.start("--start")
    assert complete.stdout == "foretell up --detach with 1.0\n"
    assert "using it" in complete.stderr

    (checkout.venv / ".foretell.json").unlink()
    shutil.rmtree(next(checkout.venv.glob("lib/python*/site-packages/dependency-1.0.dist-info")))
    (checkout.venv / "notes of somebody").touch()
    lacking = checkout.start("--start")
    assert lacking.stdout == "foretell up --detach with 1.0\n", lacking.stderr
    (aside,) = checkout.root.glob(".venv-aside-*")
    assert (aside / "notes of somebody").exists()


def test_a_package_with_another_hash_is_refused_and_the_next_start_begins_anew(checkout: Checkout) -> None:
    lock = checkout.root / "requirements.lock"
    good = lock.read_text()
    digest = good.split("sha256:")[1].strip()
    lock.write_text(good.replace(digest, "0" * 64))
    refused = checkout.start("--start")
    assert refused.returncode == 1
    assert "its hash differs" in refused.stderr
    assert refused.stdout == ""

    lock.write_text(good)
    again = checkout.start("--start")
    assert again.stdout == "foretell up --detach with 1.0\n", again.stderr


def test_no_network_is_one_sentence(checkout: Checkout) -> None:
    # Nobody listens on port 1 of the loopback.
    refused = checkout.start(
        "--start", PIP_NO_INDEX="0", PIP_INDEX_URL="http://127.0.0.1:1/simple", PIP_FIND_LINKS="", PIP_RETRIES="1"
    )
    assert refused.returncode == 1
    assert "The package index can't be reached." in refused.stderr
    assert str(checkout.venv / "setup.log") in refused.stderr


def test_two_at_once_share_the_work(checkout: Checkout) -> None:
    children = [checkout.popen("--start") for _ in range(2)]
    outcomes = [child.communicate(timeout=170) for child in children]
    assert [out for out, _ in outcomes] == ["foretell up --detach with 1.0\n"] * 2
    errors = "".join(error for _, error in outcomes)
    assert errors.count("Making .venv") == 1
    assert errors.count("waiting for it to end") == 1


def test_something_in_the_way_is_one_sentence(checkout: Checkout) -> None:
    checkout.venv.write_text("a file")
    refused = checkout.start("--start")
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"The set-up in {checkout.root} failed: ")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_one_sentence(checkout: Checkout) -> None:
    checkout.root.chmod(0o555)
    try:
        refused = checkout.start("--start")
    finally:
        checkout.root.chmod(0o755)
    assert refused.returncode == 1
    assert "can't be written to" in refused.stderr


def test_a_python_without_venv_names_the_package_to_install(checkout: Checkout, tmp_path: Path) -> None:
    # As on Debian without python3-venv: there is no module ensurepip.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")
    refused = checkout.start("--start", PYTHONPATH=str(tmp_path))
    assert refused.returncode == 1
    assert f"python3.{sys.version_info.minor}-venv" in refused.stderr


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8", "3.10"])
def test_an_old_python_is_told_so(checkout: Checkout, version: str) -> None:
    python = shutil.which(f"python{version}")
    if python is None or subprocess.call([python, "-c", ""], stderr=subprocess.DEVNULL) != 0:
        pytest.skip(f"there is no Python {version} here")
    told = subprocess.run(
        [python, str(checkout.root / "start.py"), "--start"],
        capture_output=True,
        text=True,
        check=False,
        env=checkout.environment,
    )
    assert told.returncode == 1
    assert told.stderr.startswith(f"Foretell needs Python 3.11 or newer; this is Python {version}.")
    assert len(told.stderr.strip().splitlines()) == 1
