"""Official Grounding DINO checkpoints (``.pth``) through the groundingdino-py package, also under transformers 5.

The package lies in an extra of its own: ``pip install "autolabel-vision[groundingdino]"``. Three things are put
right here: its text encoder calls what transformers 5 no longer has, it would download BERT's weights although the
checkpoint brings them, and it warns at every import that its CUDA kernel is not compiled, which it does not need.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertConfig, BertModel, GroundingDinoImageProcessor

from autolabel.errors import ModelError
from autolabel.models.dino import DinoDetector, DinoModel, DinoOptions, exact_heads
from autolabel.models.hub import STARTER, locate, tokenizer_files
from autolabel.models.phrases import Pass
from autolabel.models.runtime import keep_memory, on_gpu
from autolabel.models.specs import Options
from autolabel.models.text_once import TextOnce
from autolabel.models.weights import load_strict, read_state_dict, weights_sha256
from autolabel.protocols import ModelRef, Runtime
from autolabel.types import ModelInfo

_BERT = "google-bert/bert-base-uncased"
_CONFIGS = {"swint": "GroundingDINO_SwinT_OGC.py", "swinb": "GroundingDINO_SwinB_cfg.py"}


class TextEncoder(torch.nn.Module):
    """BERT as the detector calls it, with attention inside each phrase only."""

    def __init__(self, bert_model: Any) -> None:
        super().__init__()
        self.config = bert_model.config
        self.embeddings = bert_model.embeddings
        self.encoder = bert_model.encoder
        self.pooler = bert_model.pooler
        # Not registered as a submodule: the checkpoint's names are bert.embeddings…, not bert.model.embeddings…
        self.__dict__["_bert"] = bert_model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Encode ``(B, T)`` token ids under a ``(B, T, T)`` boolean mask; ``last_hidden_state`` is ``(B, T, D)``."""
        bert: Any = self.__dict__["_bert"]
        outputs = bert(
            input_ids=input_ids,
            attention_mask=attention_mask[:, None].bool(),
            position_ids=position_ids,
            token_type_ids=token_type_ids,
        )
        return {"last_hidden_state": outputs.last_hidden_state}


def load(ref: ModelRef, runtime: Runtime) -> DinoDetector:
    """Load an official ``.pth``.

    Options: ``config`` (path of a configuration; otherwise chosen by the file's name), ``text_encoder`` (folder with
    BERT's tokenizer and config.json, or a repository), ``batch``, ``span``, ``phrases_per_pass``.
    """
    options = Options(ref)
    settings = DinoOptions.read(options)
    config_path = options.text("config", "")
    text_encoder = options.text("text_encoder", "")
    options.done()
    package = _package()
    found = locate(ref, runtime)
    if len(found.weights) != 1:
        names = ", ".join(path.name for path in found.weights)
        raise ModelError(f"{ref} holds several checkpoints ({names}); name one: {ref.reference}/<file>")
    path = found.weights[0]
    config = package.slconfig.SLConfig.fromfile(str(_config(config_path, path, package.folder, ref)))
    folder = _text_encoder(text_encoder, ref, runtime)
    if not on_gpu(runtime):
        keep_memory()
    with _patched(package.detector, folder):
        config.text_encoder_type = str(folder)
        # Recomputing activations saves memory in training only.
        config.use_checkpoint = config.use_transformer_ckpt = False
        model = package.models.build_model(config)
    digest = weights_sha256([path])
    load_strict(model, _official_state(read_state_dict(path), model), path)
    model = model.eval().to(runtime.device)
    exact_heads(model, runtime)
    info = ModelInfo(str(ref), digest, "Apache-2.0", runtime.device, runtime.dtype)
    processor = GroundingDinoImageProcessor()
    longest = min(int(config.max_text_len), model.bert.config.max_position_embeddings)
    return DinoDetector(info, settings, DinoModel(model.tokenizer, longest, processor, Network(model, package.misc)))


class _Package:
    """The modules of groundingdino that are needed; not its ``util.inference``, which wants an old supervision."""

    def __init__(self) -> None:
        with _quiet():
            self.models = importlib.import_module("groundingdino.models")
            self.detector = importlib.import_module("groundingdino.models.GroundingDINO.groundingdino")
            self.slconfig = importlib.import_module("groundingdino.util.slconfig")
            self.misc = importlib.import_module("groundingdino.util.misc")
        self.folder = Path(str(self.models.__file__)).parent.parent


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the prints and warnings of the package about kernels that are not compiled and not needed."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _package() -> _Package:
    try:
        return _Package()
    except ImportError as error:
        raise ModelError(
            f'official checkpoints need an extra: pip install "autolabel-vision[groundingdino]" ({error}). '
            "The same model loads without it as grounding-dino:IDEA-Research/grounding-dino-tiny"
        ) from error


def _config(given: str, weights: Path, package: Path, ref: ModelRef) -> Path:
    if given:
        path = Path(given).expanduser()
        if not path.is_file():
            raise ModelError(f"{ref}: no configuration file {path}")
        return path
    name = weights.name.lower().replace("_", "").replace("-", "")
    for part, file in _CONFIGS.items():
        if part in name:
            return package / "config" / file
    raise ModelError(f"{ref}: {weights.name} says neither swint nor swinb; add ?config=<path of its configuration>")


def _text_encoder(given: str, ref: ModelRef, runtime: Runtime) -> Path:
    """Return the folder with BERT's tokenizer; the checkpoint itself brings the weights."""
    if not given and _is_bert_base(STARTER / "detector"):
        # The bundled starter reads the same vocabulary, so nothing needs to be fetched.
        return STARTER / "detector"
    path = Path(given or _BERT).expanduser()
    if path.is_dir():
        return path
    return tokenizer_files(given or _BERT, f"{ref}?text_encoder=<folder with BERT's tokenizer>", runtime)


def _is_bert_base(folder: Path) -> bool:
    """Whether the folder's tokenizer is the one of bert-base-uncased: 30,522 words, special tokens in their places."""
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.txt").is_file():
        return False
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    known = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]", ".", "?", "scratch", "##ed"])
    return len(tokenizer) == 30522 and known == [101, 102, 1012, 1029, 11969, 2098]


@contextlib.contextmanager
def _patched(module: Any, folder: Path) -> Iterator[None]:
    """While the model is built: our text encoder, and an untrained BERT of the folder's shape instead of a download."""

    def bert(_: str) -> Any:
        return BertModel(_bert_config(folder))

    before = (module.BertModelWarper, module.get_tokenlizer.get_pretrained_language_model)
    module.BertModelWarper = TextEncoder
    module.get_tokenlizer.get_pretrained_language_model = bert
    try:
        with _quiet():
            yield
    finally:
        module.BertModelWarper, module.get_tokenlizer.get_pretrained_language_model = before


def _bert_config(folder: Path) -> BertConfig:
    """Read the text encoder's shape from the folder, if its config.json is BERT's own; else bert-base's."""
    path = folder / "config.json"
    if path.is_file() and json.loads(path.read_text("utf-8")).get("model_type") == "bert":
        return BertConfig.from_json_file(str(path))
    return BertConfig()


def _official_state(state: dict[str, torch.Tensor], model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Drop what training wrappers add (``module.``) and buffers that newer versions make themselves."""
    own = model.state_dict()
    plain = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    optional = {"bert.embeddings.position_ids", "label_enc.weight"}
    kept = {name: tensor for name, tensor in plain.items() if name in own or name not in optional}
    # BERT's pooler is built but never used, and the window indices are computed: some checkpoints leave them out.
    spare = {n: own[n] for n in own if n.startswith("bert.pooler.") or n.endswith(".relative_position_index")}
    return {**spare, **kept}


class Network:
    """One forward pass of the package's model, with each caption's text encoded once."""

    def __init__(self, model: Any, misc: Any) -> None:
        self.model = model
        self.text = TextOnce.over(model.bert)
        self._misc = misc
        self._checked: set[str] = set()

    def __call__(self, pixels: torch.Tensor, mask: torch.Tensor, each: Pass) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits ``(B, Q, T)`` and relative boxes ``(B, Q, 4)`` for ``(B, 3, H, W)`` pixel values."""
        if each.caption not in self._checked:
            if tuple(self.model.tokenizer(each.caption)["input_ids"]) != each.token_ids:
                raise ModelError(f"the text encoder splits the caption {each.caption!r} differently than its phrases")
            self._checked.add(each.caption)
        samples = self._misc.NestedTensor(pixels, mask == 0)
        with warnings.catch_warnings(), self.text.reading(each.caption):
            warnings.simplefilter("ignore", FutureWarning)  # its decoder uses an old name of torch.autocast
            outputs = self.model(samples, captions=[each.caption] * len(pixels))
        return outputs["pred_logits"], outputs["pred_boxes"]
