"""What other packages import at their top and we never call, imported when it is called.

Of the time to a first label this was two thirds: transformers brings in tensors that are spread over machines, and with
them torch's compiler and SymPy, and SciPy's optimizers for the losses of a training; open_clip brings in timm; marking
one function as not to be compiled brings in the compiler; Label Studio's check of regions brings in what makes up
sample tasks, and with it the clients of three clouds. While the packages are imported and models are built, other
modules stand in for these; what is taken from them looks for the real thing when it is called or inherited from.
"""

from __future__ import annotations

import functools
import importlib
import operator
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Union

COMPILER = "torch._dynamo"
_SYMBOLS = "torch.fx.experimental.symbolic_shapes"
_PLAINLY: dict[str, Callable[..., bool]] = {
    **dict.fromkeys(("has_free_symbols", "has_free_unbacked_symbols", "is_nested_int"), lambda _: False),
    **dict.fromkeys(("expect_true", "guard_bool", "guard_or_false", "guard_or_true", "statically_known_true"), bool),
    "sym_eq": operator.eq,
    "sym_and": lambda *terms: all(terms),
    "sym_or": lambda *terms: any(terms),
}
"""What torch asks about sizes and conditions that may hang on a symbol, and the answers for plain numbers."""
LATER = (
    COMPILER,
    "jsf",
    "scipy.optimize",
    "sympy",
    "timm",
    "torch.distributed._composable",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    _SYMBOLS,
    "transformers.distributed.expert_parallel",
    "transformers.distributed.tensor_parallel",
)
_MARKS = {"allow_in_graph", "assume_constant_result", "disable"}
_PACKAGES = {"autolabel", "groundingdino", "label_studio_sdk", "open_clip", "sam2", "torchvision", "transformers"}


@contextmanager
def heavy_imports_later() -> Iterator[None]:
    """Within this, other modules stand in for those in `LATER` that are installed and not imported yet."""
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _clear()


def import_light(*names: str) -> None:
    """Import modules without what they ask for in vain.

    A package of another version that does more with a stand-in than to keep it is imported as it is.
    """
    missing = [name for name in names if name not in sys.modules]
    before = set(sys.modules)
    try:
        with heavy_imports_later():
            for name in missing:
                importlib.import_module(name)
    except Exception:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in _PACKAGES:
                del sys.modules[name]
        for name in missing:
            importlib.import_module(name)


class _Finder(MetaPathFinder, Loader):
    """Finds stand-ins for modules that can wait, and for what is inside them; for the thread that made it."""

    def __init__(self) -> None:
        packages = {name.partition(".")[0] for name in LATER}
        installed = {name for name in packages if name in sys.modules or find_spec(name) is not None}
        self._later = {n for n in LATER if n not in sys.modules and n.partition(".")[0] in installed}
        self._thread = threading.get_ident()

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        """Find a stand-in, unless the real module is being imported at this moment."""
        if getattr(_importing, "real", False) or threading.get_ident() != self._thread:
            return None
        parts = fullname.split(".")
        if not any(".".join(parts[:count]) in self._later for count in range(1, len(parts) + 1)):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Make one."""
        _put_off.add(spec.name)
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""


_importing = threading.local()
_put_off: set[str] = set()


class _StandIn(ModuleType):
    """A module that is not there yet; from whoever kept it, it passes on the real one's content later."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == COMPILER and name in _MARKS:
            return functools.partial(_marked_later, name)
        # Of the compiler itself nothing else is kept but used at once.
        if self.__name__ != COMPILER and sys.modules.get(self.__name__) is self:
            return _Name(self.__name__, name)
        return getattr(_real(self.__name__), name)


class _Name:
    """A class or function that is not there yet; it may be called, inherited from, and stand in annotations."""

    def __init__(self, module: str, name: str) -> None:
        self._module = module
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._module == _SYMBOLS and self._name in _PLAINLY and not kwargs and _plain(args):
            return _PLAINLY[self._name](*args)
        return self._there()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._there(), name)

    def __instancecheck__(self, instance: object) -> bool:
        # Of a class whose module nobody has imported there are no instances.
        module = sys.modules.get(self._module)
        return module is not None and not isinstance(module, _StandIn) and isinstance(instance, self._there())

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[Any, ...]:
        return (self._there(),)

    def __or__(self, other: Any) -> Any:
        return Union[self, other]  # noqa: UP007 - what the other way of writing it comes to

    def __ror__(self, other: Any) -> Any:
        return Union[other, self]  # noqa: UP007

    def _there(self) -> Any:
        return getattr(_real(self._module), self._name)


def _plain(values: Iterable[object]) -> bool:
    """Tell whether all are numbers or truth values, or tuples of them."""
    return all(isinstance(each, int) or (isinstance(each, tuple) and _plain(each)) for each in values)


def _real(name: str) -> ModuleType:
    """Import a module itself; with one of transformers' come the others, which register what they can do."""
    before = getattr(_importing, "real", False)
    _importing.real = True
    try:
        _clear()
        for mate in sorted(_put_off):
            if mate.partition(".")[0] == name.partition(".")[0] == "transformers":
                importlib.import_module(mate)
        return importlib.import_module(name)
    finally:
        _importing.real = before


def _clear() -> None:
    """Forget the stand-ins, so that the next import brings the real modules."""
    found = [(name, module) for name, module in list(sys.modules.items()) if isinstance(module, _StandIn)]
    for name, module in found:
        sys.modules.pop(name, None)
        parent, _, child = name.rpartition(".")
        holder = sys.modules.get(parent)
        if holder is not None and vars(holder).get(child) is module:
            delattr(holder, child)


def _marked_later(mark: str, function: Callable[..., Any] | None, *args: Any, **kwargs: Any) -> Any:
    """Mark a function for torch's compiler once there is one: before, nothing is compiled, and no mark matters."""
    if function is None:
        return lambda function: _marked_later(mark, function, *args, **kwargs)

    @functools.cache
    def marked() -> Callable[..., Any]:
        done: Callable[..., Any] = getattr(_real(COMPILER), mark)(function, *args, **kwargs)
        return done

    @functools.wraps(function)
    def late(*args: Any, **kwargs: Any) -> Any:
        compiler = sys.modules.get(COMPILER)
        there = compiler is not None and not isinstance(compiler, _StandIn)
        return marked()(*args, **kwargs) if there else function(*args, **kwargs)

    return late
