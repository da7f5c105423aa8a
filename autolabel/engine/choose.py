"""Which engine a recipe asks for, or suits the machine."""

from __future__ import annotations

from autolabel.engine.base import Engine, Setup
from autolabel.engine.local import LocalEngine
from autolabel.engine.on_ray import RayEngine
from autolabel.engine.sequential import SequentialEngine
from autolabel.engine.workers import Seat, WorkersEngine, cpu_seats, gpu_seats
from autolabel.errors import ConfigError
from autolabel.loading import Models
from autolabel.models.runtime import cuda_devices


def choose(setup: Setup, models: Models) -> Engine:
    """Make the engine that ``setup.recipe`` asks for.

    Raises ConfigError where it asks for other processes but models were given as loaded objects, which stay here.
    """
    recipe = setup.recipe
    if recipe.engine == "sequential":
        return SequentialEngine(models, setup.plan)
    here = [task for task, model in models.parts().items() if model.given]
    if here:
        if recipe.engine == "ray" or (recipe.workers or 1) > 1:
            raise ConfigError(
                f"the {', '.join(here)} was given as a loaded object, which stays in this process; give its spec, "
                "or leave engine and workers out"
            )
        return LocalEngine(models, setup.plan)
    if recipe.engine == "ray":
        return RayEngine(setup)
    seats = seats_for(recipe.device, recipe.workers, cuda_devices())
    return WorkersEngine(setup, seats) if len(seats) > 1 else LocalEngine(models, setup.plan)


def seats_for(device: str | None, workers: int | None, gpus: int) -> tuple[Seat, ...]:
    """Places for worker processes: each of the GPUs, unless fewer are wanted, or a share of the cores.

    Raises ConfigError for more workers than there are GPUs to run on, or several on one device.
    """
    kind, _, index = (device or "auto").partition(":")
    on_gpus = gpus > 0 and kind in ("auto", "cuda")
    if on_gpus and not index:
        if (workers or 1) > gpus:
            raise ConfigError(f"workers = {workers}, but this machine has {gpus} CUDA devices; a worker needs its own")
        return gpu_seats(workers or gpus)
    if workers is None or workers == 1:
        return (Seat(device),)
    if on_gpus or kind == "mps":
        raise ConfigError(f"workers = {workers} cannot share device = {device!r}; leave one of the two settings out")
    return cpu_seats(workers, device)
