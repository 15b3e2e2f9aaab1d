"""Patch this process as soon as it has imported torch. Python runs this file when it starts.

``run --children`` puts this folder on ``PYTHONPATH``, which every Python that the program starts
reads. Nothing is imported here that Python itself has not imported by now: a process that has
nothing to do with torch must not start more slowly. Pythons of other environments read this file,
too: its syntax is that of any Python 3, and types are named in strings.
"""

import os
import sys

# importlib.machinery would be loaded for this one name.
from _frozen_importlib_external import PathFinder

TYPE_CHECKING = False  # as type checkers know it
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_PACKAGE = "torch_mlx_spectro"


class _Waiter:
    """Waits for torch to be imported, then patches.

    Where modules of our package import torch, they are waited for, too: none of them can be used
    before it is complete.
    """

    def __init__(self, setting: str) -> None:
        self._setting = setting
        #: Modules of our package that are being imported.
        self._begun = 0

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "ModuleSpec | None":
        is_ours = name.partition(".")[0] == _PACKAGE
        if name != "torch" and not is_ours:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    self._watch(spec.loader, is_ours)
                return spec
        return None

    def _watch(self, loader: "Any", is_ours: bool) -> None:
        """Learn when a loader has run its module."""
        run = loader.exec_module

        def run_and_look(module: "ModuleType") -> None:
            del loader.exec_module  # the instance's; its class has the one that was there before
            self._begun += is_ours
            try:
                run(module)
            finally:
                self._begun -= is_ours
            self._look()

        loader.exec_module = run_and_look

    def _look(self) -> None:
        if "torch" in sys.modules and not self._begun and self in sys.meta_path:
            sys.meta_path.remove(self)
            _patch(self._setting)


def _patch(setting: str) -> None:
    import json

    asked = json.loads(setting)
    if asked["prefix"] != sys.prefix:
        return  # another environment, in which this package need not be installed
    try:
        from torch_mlx_spectro.cli.children.child import begin

        begin(asked)
    except Exception as error:  # whatever it is, the program is to run as it would without us
        sys.stderr.write(f"torch_mlx_spectro: process {os.getpid()} is not patched: {error}\n")


def _run_hidden() -> None:
    """Run the sitecustomize that this one hides, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or os.curdir) != here]
    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None:
        return
    module = sys.modules["sitecustomize"] = type(sys)("sitecustomize")
    module.__dict__.update(__spec__=spec, __file__=spec.origin, __loader__=spec.loader)
    spec.loader.exec_module(module)


if os.environ.get("TORCH_MLX_SPECTRO_CHILDREN"):
    sys.meta_path.insert(0, _Waiter(os.environ["TORCH_MLX_SPECTRO_CHILDREN"]))
_run_hidden()
