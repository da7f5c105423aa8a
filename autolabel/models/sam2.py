"""Loading SAM 2 and 2.1: which configuration a checkpoint needs, read as a file, never through Hydra's search path."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from autolabel.errors import ModelError
from autolabel.models.hub import Located, locate
from autolabel.models.runtime import keep_memory, on_gpu
from autolabel.models.sam2_segmenter import Sam2Options, Sam2Segmenter
from autolabel.models.sets import licence_of
from autolabel.models.specs import Options
from autolabel.models.weights import load_strict, read_state_dict, weights_sha256
from autolabel.protocols import ModelRef, Runtime
from autolabel.types import ModelInfo

_NAME = re.compile(r"sam2(?P<minor>[._]1)?[_-]hiera[_-](?P<size>tiny|small|base[_-]plus|large|t|s|b\+|l)(?![a-z])")
_SIZES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}
# What the official builder adds for images: where a single mask is unstable, take the best of the three others.
_DECODER_EXTRAS = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}


def load(ref: ModelRef, runtime: Runtime) -> Sam2Segmenter:
    """Load an official ``.pt``, a folder with ``config.yaml`` and weights, a repository of the hub, or ``starter``.

    Options: ``config`` (path or name of a configuration; otherwise chosen by the checkpoint's name), ``batch``,
    ``boxes``, ``multimask``, ``margin``, ``points``, ``window``, ``zoom``. A configuration may state its
    own in a table ``autolabel``.
    """
    path = _one_checkpoint(locate(ref, runtime), ref)
    config = _config_file(Options(ref).text("config", ""), path, ref)
    options = Options(ref, _own_options(config))
    options.text("config", "")
    settings = Sam2Options(
        options.optional_integer("batch"),
        options.optional_integer("boxes"),
        options.flag("multimask"),
        options.optional_number("margin"),
        options.flag("points", True),
        options.optional_integer("window"),
        options.optional_number("zoom", low=1.0),  # a window holds its box
    )
    options.done()
    model = build(config)
    if not on_gpu(runtime):
        keep_memory()
    digest = weights_sha256([path])
    load_strict(model, read_state_dict(path), path)
    info = ModelInfo(str(ref), digest, licence_of(ref), runtime.device, runtime.dtype)
    return Sam2Segmenter(info, settings, model.eval().to(runtime.device))


def _own_options(config: Path) -> dict[str, str]:
    """Options that a configuration states for itself, as strings."""
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(OmegaConf.load(config), resolve=True)
    table = content.get("autolabel") if isinstance(content, dict) else None
    return {str(name): str(value) for name, value in (table or {}).items()}


def build(config: Path) -> Any:
    """Build an untrained SAM 2 from a configuration file with a ``model`` table.

    Raises ModelError when the file names anything to construct that is not part of the sam2 package.
    """
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(OmegaConf.load(config), resolve=True)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ModelError(f"{config} has no table 'model'; is it a configuration of SAM 2?")
    table: dict[str, Any] = content["model"]
    _check_targets(table, config)
    table["sam_mask_decoder_extra_args"] = {**_DECODER_EXTRAS, **(table.get("sam_mask_decoder_extra_args") or {})}
    table["compile_image_encoder"] = False
    return instantiate(table, _recursive_=True)


def _check_targets(table: Any, config: Path) -> None:
    """Allow the model's own parts only: a configuration names what is called, so one from elsewhere could harm."""
    if isinstance(table, dict):
        target = table.get("_target_", "sam2.modeling.")
        if not str(target).startswith("sam2.modeling."):
            raise ModelError(f"{config} asks to construct {target!r}; only sam2.modeling is allowed")
    for value in table.values() if isinstance(table, dict) else table if isinstance(table, list) else ():
        _check_targets(value, config)


def _one_checkpoint(found: Located, ref: ModelRef) -> Path:
    if len(found.weights) == 1:
        return found.weights[0]
    wanted = f"{ref.reference.split('/')[-1].replace('-', '_')}.pt"
    for path in found.weights:
        if path.name == wanted:
            return path
    names = ", ".join(path.name for path in found.weights)
    raise ModelError(f"{ref} holds several checkpoints ({names}); name one: {ref.reference}/<file>")


def _config_file(given: str, weights: Path, ref: ModelRef) -> Path:
    """Find the configuration: the one that is given, the one beside the weights, or the package's by name."""
    import sam2

    configs = Path(str(sam2.__file__)).parent / "configs"
    if given:
        for path in (
            Path(given).expanduser(),
            *configs.glob(f"**/{Path(given).name}"),
            *configs.glob(f"**/{given}.yaml"),
        ):
            if path.is_file():
                return path
        known = ", ".join(sorted(p.stem for p in configs.glob("sam2*/sam2*_hiera_?*.yaml") if "training" not in str(p)))
        raise ModelError(f"{ref}: no configuration {given!r}; give a path or one of {known}")
    if (weights.parent / "config.yaml").is_file():
        return weights.parent / "config.yaml"
    match = _NAME.search(weights.name.lower())
    if match is None:
        raise ModelError(
            f"{ref}: the name {weights.name} does not say which SAM 2 it is; add ?config=sam2.1_hiera_t (or a path)"
        )
    size = _SIZES.get(match["size"].replace("-", "_"), match["size"])
    version = "sam2.1" if match["minor"] else "sam2"
    return configs / version / f"{version}_hiera_{size}.yaml"
