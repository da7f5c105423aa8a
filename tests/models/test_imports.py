"""Models are loaded without what their packages import in vain, and all of it is there for whoever asks."""

from __future__ import annotations

import subprocess
import sys

LOADED = """
import sys
from autolabel.models import registry
from autolabel.models.imports import LATER
from autolabel.models.runtime import pick_runtime
for task in ("detector", "segmenter", "classifier"):
    registry.load(task, registry.resolve(task), pick_runtime("cpu"))
assert not set(LATER) & set(sys.modules), set(LATER) & set(sys.modules)
"""

ASKED = """
import sys
from autolabel.models.imports import import_light
import_light("torchvision.transforms.v2", "transformers.modeling_utils", "open_clip.timm_model")
import torch, torchvision
from transformers import PreTrainedModel
from transformers.distributed import mixin, parallel_utils
from transformers.generation.continuous_batching.cache import PagedAttentionCache
from transformers.loss import loss_for_object_detection as losses

boxes = [torch.tensor([[1.0, 1, 9, 9]])]
assert torchvision.ops.roi_align(torch.rand(1, 3, 20, 20), boxes, (4, 4)).shape == (1, 3, 4, 4)
assert [list(side) for side in losses.linear_sum_assignment([[3, 1], [1, 3]])] == [[0, 1], [1, 0]]

from transformers.distributed import sharding_utils
put_off = sharding_utils.DTensor
assert not isinstance(torch.ones(2), put_off), "nobody has imported it: nothing can be one"
assert PagedAttentionCache.update.__name__ == "update"

kept = sys.modules["open_clip.timm_model"].timm
assert kept.create_model("resnet18", pretrained=False, num_classes=3)(torch.rand(1, 3, 64, 64)).shape == (1, 3)
import timm
assert kept.create_model is timm.create_model

styles = parallel_utils.ALL_PARALLEL_STYLES
try:
    mixin.apply_tensor_parallelism(no_such_argument=None)
except TypeError:
    assert "colwise" in styles and "grouped_gemm" in styles
else:
    raise AssertionError("the real function was not called")
"""

INHERITED = """
import sys
from autolabel.models.imports import heavy_imports_later
with heavy_imports_later():
    from torch.distributed.tensor import DTensor, Shard
    import torch._dynamo as compiler
    from sympy import Symbol
    assert "torch.distributed.tensor.placement_types" not in sys.modules

    @compiler.disable
    def thrice(x):
        return 3 * x

    assert thrice(2) == 6
annotation = DTensor | None
assert not isinstance(4, Symbol)
class Mine(Symbol):
    pass
import sympy
assert issubclass(Mine, sympy.Symbol) and isinstance(Mine("a"), Symbol) and Mine("a").name == "a"
assert Shard(1).dim == 1
import torch
from torch.distributed.tensor import placement_types
assert isinstance(Shard(1), placement_types.Shard)
import torch._dynamo
assert torch._dynamo is not compiler and torch._dynamo.is_compiling() is compiler.is_compiling() is False
assert thrice(2) == 6
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist() == [2, 2]
"""

THREADS = """
import threading
from autolabel.models.imports import heavy_imports_later
found = []
def elsewhere():
    import scipy.optimize
    found.append(scipy.optimize)
with heavy_imports_later():
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
assert found[0].minimize(lambda x: (x - 2) ** 2, 0.0).success
"""


def test_the_starter_loads_without_compiler_and_optimizers() -> None:
    subprocess.run([sys.executable, "-c", LOADED], check=True)


def test_what_was_put_off_is_there_when_it_is_called() -> None:
    subprocess.run([sys.executable, "-c", ASKED], check=True)


def test_what_was_put_off_can_be_inherited_from_and_marks_are_kept() -> None:
    subprocess.run([sys.executable, "-c", INHERITED], check=True)


def test_other_threads_import_the_real_modules() -> None:
    subprocess.run([sys.executable, "-c", THREADS], check=True)
