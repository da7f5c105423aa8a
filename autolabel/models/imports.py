"""torchvision without torch's compiler: importing it brings in the whole of it, which is seconds, and asks for nothing.

Of the time to a first label this is a fifth: ``torchvision.ops`` imports one function of ``torch._dynamo.utils``, and
``torchvision.tv_tensors`` marks one as not to be compiled; each loads the compiler, SymPy and thousands of files.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo.utils"
_LOCK = threading.Lock()


def import_torchvision() -> None:
    """Import torchvision so that it asks for torch's compiler when it needs it, not before.

    What it asks for is stood in for while it is imported: a function that passes the question on, and a mark that
    matters only in code that is compiled together with torchvision's transforms, which none is here. Does nothing where
    either is there already.
    """
    with _LOCK:
        if "torchvision" not in sys.modules and _COMPILER not in sys.modules:
            _import()


def _import() -> None:
    import torch

    stand_in = ModuleType(_COMPILER)
    stand_in.is_compile_supported = _is_compile_supported  # type: ignore[attr-defined]
    disable = torch.compiler.disable
    sys.modules[_COMPILER] = stand_in
    torch.compiler.disable = _unmarked  # type: ignore[assignment]
    try:
        importlib.import_module("torchvision.transforms.v2")
    except (ImportError, AttributeError):  # another version, which wants more: import it as it is
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
    finally:
        torch.compiler.disable = disable
        if sys.modules.get(_COMPILER) is stand_in:
            del sys.modules[_COMPILER]


def _is_compile_supported(device_type: str) -> object:
    return importlib.import_module(_COMPILER).is_compile_supported(device_type)


def _unmarked(function: Callable[..., Any] | None = None, *_: object, **__: object) -> Any:
    return function if function is not None else lambda inner: inner
