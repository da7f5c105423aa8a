"""The loop that other tools run, by their own code: one image, one pass, one crop at a time.

Boxes come from groundingdino's own ``predict`` (or from transformers' processor, model and post-processing), masks from
sam2's ``SAM2ImagePredictor``, with all boxes of an image in one call, opinions from open_clip. It is the kind form of
the loop: the class texts are encoded once, where autodistill encodes them for each crop, and no crop goes through a
file.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._full_size import CLASSES, TEMPLATE, Checkpoints


class Reference:
    """The three models as other tools load them, and the loop over images."""

    def __init__(self, checkpoints: Checkpoints, device: str, code: str, boxes: int, half: bool) -> None:
        self.device = device
        self.boxes = boxes
        self.half = half
        self.detect: Any = (_Official if code == "official" else _Transformers)(checkpoints, device)
        self.predictor = _predictor(checkpoints, device)
        self.clip, self.preprocess, self.text = _clip(checkpoints, device)
        self.steps: Counter[str] = Counter()
        self.limits: dict[Path, float] = {}
        self.proposals: dict[Path, tuple[np.ndarray, np.ndarray]] = {}

    def autocast(self) -> AbstractContextManager[Any]:
        """Run the segmenter as its own examples do on a GPU; on a CPU in float32."""
        return torch.autocast(self.device, torch.float16, enabled=self.half)

    def prepare(self, paths: Sequence[Path]) -> None:
        """Find for each image the score that ``boxes`` of its boxes reach, so that each image has as many as ours."""
        for path in paths:
            self.proposals[path] = self.detect(path, CLASSES, 0.0, Counter())
            scores = self.proposals[path][1]
            self.limits[path] = float(np.sort(scores)[-self.boxes - 1])

    def run(
        self, paths: Sequence[Path], given: dict[str, np.ndarray], captions: Sequence[Sequence[str]]
    ) -> list[dict[str, Any]]:
        """Label images; boxes are detected, then those of ``given`` are used, which both sides have in common."""
        return [self._one(path, given[path.name], captions) for path in paths]

    def _one(self, path: Path, boxes: np.ndarray, captions: Sequence[Sequence[str]]) -> dict[str, Any]:
        from PIL import Image
        from pycocotools import mask as coco_mask

        for caption in captions:
            found = self.detect(path, caption, self.limits[path], self.steps)
        image = Image.open(path).convert("RGB")
        started = time.perf_counter()
        with self.autocast(), torch.inference_mode():
            self.predictor.set_image(np.asarray(image))
            self._step("segment: encode", started)
            started = time.perf_counter()
            masks, scores, _ = self.predictor.predict(box=boxes, multimask_output=False)
        self._step("segment: decode", started)
        started = time.perf_counter()
        masks = masks.reshape(len(boxes), *masks.shape[-2:])
        coded = [coco_mask.encode(np.asfortranarray(mask > 0, dtype=np.uint8)) for mask in masks]
        self._step("segment: masks", started)
        probs = []
        for box in boxes:
            started = time.perf_counter()
            cut = self.preprocess(image.crop(tuple(_whole(box)))).to(self.device)
            self._step("classify: crops", started)
            started = time.perf_counter()
            with torch.no_grad(), self.autocast():
                features = self.clip.encode_image(cut[None], normalize=True)
                probs.append(
                    (self.clip.logit_scale.exp() * features @ self.text.T).softmax(-1)[0].float().cpu().numpy()
                )
            self._step("classify: encode", started)
        return {"found": found[0], "masks": coded, "scores": scores.reshape(-1), "probs": np.array(probs)}

    def _step(self, name: str, started: float) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        self.steps[name] += time.perf_counter() - started


class _Official:
    """groundingdino's ``load_image`` and ``predict``; its BERT is adapted to transformers 5, without which it fails."""

    def __init__(self, checkpoints: Checkpoints, device: str) -> None:
        from transformers import AutoModelForZeroShotObjectDetection

        from autolabel.models import groundingdino_py as port
        from autolabel.models.weights import load_strict
        from tests.parity.official_weights import to_official

        package = port._package()
        config = package.slconfig.SLConfig.fromfile(str(package.folder / "config" / "GroundingDINO_SwinT_OGC.py"))
        bert = _bert(checkpoints)
        with port._patched(package.detector, bert):
            config.text_encoder_type = str(bert)
            config.use_checkpoint = config.use_transformer_ckpt = False
            self.model = package.models.build_model(config)
        state = to_official(AutoModelForZeroShotObjectDetection.from_pretrained(checkpoints.detector).state_dict())
        load_strict(self.model, port._official_state(state, self.model), checkpoints.detector)
        self.model.eval().to(device)
        self.device = device

    def __call__(
        self, path: Path, classes: Sequence[str], limit: float, steps: Counter[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes ``(N, 4)`` relative cxcywh and scores ``(N,)`` above ``limit``."""
        from groundingdino.util.inference import load_image, predict

        started = time.perf_counter()
        _, image = load_image(str(path))
        steps["detect: read and resize"] += time.perf_counter() - started
        started = time.perf_counter()
        boxes, scores, _ = predict(self.model, image, " . ".join(classes), limit, limit, device=self.device)
        steps["detect"] += time.perf_counter() - started
        return boxes.numpy(), scores.numpy()


class _Transformers:
    """transformers' processor, model and post-processing."""

    def __init__(self, checkpoints: Checkpoints, device: str) -> None:
        from transformers import AutoModelForZeroShotObjectDetection, GroundingDinoProcessor

        self.processor = GroundingDinoProcessor.from_pretrained(str(checkpoints.detector))
        self.model = AutoModelForZeroShotObjectDetection.from_pretrained(checkpoints.detector).eval().to(device)
        self.device = device

    def __call__(
        self, path: Path, classes: Sequence[str], limit: float, steps: Counter[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes ``(N, 4)`` relative cxcywh and scores ``(N,)`` above ``limit``."""
        from PIL import Image

        started = time.perf_counter()
        image = Image.open(path).convert("RGB")
        text = ". ".join(classes) + "."
        inputs = self.processor(images=image, text=text, return_tensors="pt").to(self.device)
        steps["detect: read and resize"] += time.perf_counter() - started
        started = time.perf_counter()
        with torch.no_grad():
            outputs = self.model(**inputs)
        answer = self.processor.post_process_grounded_object_detection(
            outputs, inputs.input_ids, threshold=limit, text_threshold=limit, target_sizes=[(1, 1)]
        )[0]
        corners = answer["boxes"].cpu().numpy()
        steps["detect"] += time.perf_counter() - started
        centres = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
        return centres, answer["scores"].cpu().numpy()


def _bert(checkpoints: Checkpoints) -> Path:
    """Write the tokenizer and the text encoder's configuration as a folder of their own."""
    from transformers import AutoConfig, AutoTokenizer

    folder = checkpoints.folder / "bert"
    if not (folder / "config.json").is_file():
        AutoTokenizer.from_pretrained(checkpoints.detector).save_pretrained(folder)
        AutoConfig.from_pretrained(checkpoints.detector).text_config.save_pretrained(folder)
    return folder


def _predictor(checkpoints: Checkpoints, device: str) -> Any:
    from safetensors.torch import load_file
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    from autolabel.models.sam2 import build

    model = build(checkpoints.segmenter / "config.yaml")
    model.load_state_dict(load_file(checkpoints.segmenter / "model.safetensors"))
    return SAM2ImagePredictor(model.eval().to(device))


def _clip(checkpoints: Checkpoints, device: str) -> tuple[Any, Any, torch.Tensor]:
    import open_clip
    from safetensors.torch import load_file

    model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32")
    model.load_state_dict(load_file(checkpoints.classifier))
    model = model.eval().to(device)
    tokens = open_clip.get_tokenizer("ViT-B-32")([TEMPLATE.format(name) for name in CLASSES]).to(device)
    with torch.no_grad():
        return model, preprocess, model.encode_text(tokens, normalize=True)


def _whole(box: np.ndarray) -> list[int]:
    x_min, y_min, x_max, y_max = box.tolist()
    return [int(x_min), int(y_min), max(int(np.ceil(x_max)), int(x_min) + 1), max(int(np.ceil(y_max)), int(y_min) + 1)]
