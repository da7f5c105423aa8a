"""torchvision comes without torch's compiler, and with all that it can do."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from autolabel.models.imports import import_torchvision
import_torchvision()
assert "torchvision.transforms.v2" in sys.modules
assert "torch._dynamo" not in sys.modules, "the compiler was imported after all"
assert "torch._dynamo.utils" not in sys.modules, "the stand-in is still there"
import torch, torchvision
boxes = [torch.tensor([[1.0, 1, 9, 9]])]
assert torchvision.ops.roi_align(torch.rand(1, 3, 20, 20), boxes, (4, 4)).shape == (1, 3, 4, 4)
assert torch.compiler.disable.__module__ == "torch.compiler"
from torch._dynamo.utils import is_compile_supported
assert torchvision.ops.roi_align.__globals__["is_compile_supported"]("cpu") == is_compile_supported("cpu")
"""


def test_the_compiler_waits_until_it_is_asked_for() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)
