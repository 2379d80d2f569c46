"""A process that checks a package, and optionally installs it: `python -m foretell.inference.check_process`.

It runs untrusted code outside of the service's process. Each line of its output is a JSON object: the findings, and
finally the outcome.
"""

import argparse
import json
import sys
import tempfile
from contextlib import chdir
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from foretell.inference import checking, installing
from foretell.inference.package import ModelPackage
from foretell.inference.runtimes import load_runtime
from foretell.inference.settings import InferenceSettings
from foretell.kit.errors import ForetellError


class NotReady(ForetellError):
    """The package is not ready."""


def main() -> None:
    """Check the package in a folder; with `--into`, install it there if it is ready."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--into", type=Path)
    parser.add_argument("--replace", action="store_true")
    asked = parser.parse_args()
    load = partial(load_runtime, permissions=InferenceSettings().permissions)
    # Output of a model must not be mixed with our lines.
    out, sys.stdout = sys.stdout, sys.stderr

    def say(**line: Any) -> None:
        out.write(json.dumps(line, default=str) + "\n")
        out.flush()

    def check(folder: Path) -> ModelPackage:
        # In an empty folder: files that a model finds only in the current folder would be missing in a service.
        with tempfile.TemporaryDirectory() as nowhere, chdir(nowhere):
            package = checking.check(folder.absolute(), load, lambda finding: say(**asdict(finding)))
        if package is None:
            raise NotReady
        return package

    def approve(copy: Path) -> None:
        check(copy)

    try:
        if asked.into is None:
            package = check(asked.folder)
        else:
            package = installing.install(asked.folder, asked.into, replace=asked.replace, approve=approve)
    except NotReady:
        say(ready=False, installed=False)
    except ForetellError as error:
        say(ready=False, installed=False, code=error.code, reason=error.message)
    else:
        say(ready=True, installed=asked.into is not None, name=package.name, version=package.version)


if __name__ == "__main__":
    main()
