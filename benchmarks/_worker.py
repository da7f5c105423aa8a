"""One side of a comparison in a process of its own, so that neither side's settings reach the other.

Commands come as JSON lines on stdin, answers go back the same way; between commands a process waits.
"""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._full_size import CLASSES, Checkpoints
from benchmarks._measure import peak_mb


class Worker:
    """A side that runs elsewhere."""

    def __init__(self, side: str, folder: Path, **options: object) -> None:
        self.side = side
        command = [sys.executable, "-m", "benchmarks._worker", side, str(folder), json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask("ready")

    def ask(self, command: str, **values: object) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"command": command, **values}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the side '{self.side}' ended; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Ours:
    """The pipeline as a user calls it, with models in memory; and its forward passes alone, replayed."""

    def __init__(self, folder: Path, device: str, boxes: int, cpu: str = "eager", **settings: object) -> None:
        from autolabel.models import registry
        from autolabel.models.runtime import pick_runtime

        self.folder = folder
        self.images = folder / "images"
        self.settings = {
            "classes": [{"name": name} for name in CLASSES],
            "proposals": {"floor": 0.0, "iou": 1.0, "limit": boxes},
            "thresholds": {"min_score": 0.0},
            "tiles": {"mode": "off"},
            "device": device,
            **settings,
        }
        runtime = pick_runtime(device, None, offline=True, cpu=cpu)
        specs = Checkpoints(folder).specs()
        self.models: dict[str, Any] = {task: registry.load(task, spec, runtime) for task, spec in specs.items()}  # type: ignore[arg-type]
        self.device = device
        self.calls: dict[str, list[tuple[Any, tuple[Any, ...], dict[str, Any]]]] = {}

    def run(self) -> dict[str, Any]:
        """Label all images into a new run folder."""
        import autolabel

        path = Path(tempfile.mkdtemp(prefix="bench-run-", dir=self.folder))
        started = time.perf_counter()
        run = autolabel.run(self.images, path=path, **self.models, **self.settings)
        seconds = time.perf_counter() - started
        timings, status = run.manifest.timings, run.manifest.status
        shutil.rmtree(path)
        return {"seconds": seconds, "timings": timings, "status": status, "graphs": self._graphs()}

    def answers(self, out: str) -> dict[str, Any]:
        """Label all images and keep what the models said, to compare."""
        import autolabel

        path = Path(tempfile.mkdtemp(prefix="bench-run-", dir=self.folder))
        run = autolabel.run(self.images, path=path, **self.models, **self.settings)
        said = {
            one.image.path: {
                "proposals": self._proposals(self.images / one.image.path),
                "boxes": one.boxes_xyxy,
                "masks": [mask.to_coco() if mask else None for mask in one.masks],
                "scores": one.mask_scores,
                "probs": one.class_probs,
            }
            for one in run.proposals()
        }
        Path(out).write_bytes(pickle.dumps(said))
        shutil.rmtree(path)
        return {"images": len(said), "boxes": [len(one["boxes"]) for one in said.values()]}

    def _proposals(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """All boxes ``(900, 4)`` relative cxcywh of the detector's network, and each one's best score of any token."""
        from PIL import Image

        from autolabel.models.runtime import forward_pass
        from autolabel.protocols import Runtime

        detector = self.models["detector"]
        (caption,) = detector._plan(CLASSES)
        pixels = detector.pixel_values(np.asarray(Image.open(path).convert("RGB")))
        with forward_pass(Runtime(detector.info.device, detector.info.dtype)):
            logits, boxes = detector._run(pixels, caption)
        return boxes[0].float().cpu().numpy(), logits[0].float().sigmoid().amax(dim=-1).cpu().numpy()

    def _graphs(self) -> dict[str, float]:
        """Share of each network's passes since the last time that went through a converted graph."""
        from autolabel.models.accelerate import Quick
        from autolabel.models.accelerate_compile import Compiled

        shares = {}
        for task, attribute in (("detector", "forward"), ("segmenter", "encoder"), ("classifier", "encoder")):
            network = getattr(self.models[task], attribute)
            if isinstance(network, Quick | Compiled):
                shares[task] = network.passes["quick"] / max(1, network.passes.total())
                network.passes.clear()
        return shares

    def record(self, *, best: bool = True) -> dict[str, Any]:
        """Take one pass, and keep the inputs of every forward pass; ``best`` forms them into the quickest batches."""
        places = {
            "detect": ("detector", "forward"),
            "segment: encode": ("segmenter", "encoder"),
            "segment: decode": ("segmenter", "decoder"),
            "classify": ("classifier", "encoder"),
        }
        originals = {}
        for name, (task, attribute) in places.items():
            original = originals[name] = getattr(self.models[task], attribute)

            def spy(*args: Any, _name: str = name, _original: Any = original, **kwargs: Any) -> Any:
                self.calls.setdefault(_name, []).append((_original, args, kwargs))
                return _original(*args, **kwargs)

            setattr(self.models[task], attribute, spy)
        try:
            self.run()
        finally:
            for name, (task, attribute) in places.items():
                setattr(self.models[task], attribute, originals[name])
        if best:
            self._best()
        return {name: [len(_first(call)) for call in calls] for name, calls in self.calls.items()}

    def bare(self) -> dict[str, Any]:
        """Repeat the forward passes on the same inputs, and nothing else."""
        parts = {name: self._replay(calls) for name, calls in self.calls.items()}
        return {"seconds": sum(parts.values()), "parts": parts}

    def _best(self) -> None:
        """Put the inputs of networks that take images into the batches that are quickest, where those are others.

        Each size is tried with one batch: once to warm up, once with the clock. On a CPU two images at once already
        leave the cache (see the ADR), so more are not tried there.
        """
        import torch

        cuda = self.device.startswith("cuda")
        images, crops = ([1, 4, 8, 16, 32], [64, 256, 1024]) if cuda else ([1, 2], [16, 64])
        for name, sizes in (("detect", images), ("segment: encode", images), ("classify", crops)):
            calls = self.calls[name]
            args = calls[0][1]
            if len({call[1][0].shape[1:] for call in calls}) > 1:
                continue
            every = torch.cat([call[1][0] for call in calls])

            def in_batches(items: Any, size: int, name: str = name, call: Any = calls[0]) -> list[Any]:
                batches = []
                for part in items.split(size):
                    rest = list(call[1][1:])
                    if name == "detect":
                        rest[0] = rest[0][:1].expand(len(part), *rest[0].shape[1:])
                    batches.append((call[0], (part, *rest), call[2]))
                return batches

            quickest: tuple[float, int] | None = None
            for size in sorted({len(args[0]), *sizes}):
                if size > len(every):
                    continue
                one = in_batches(every[:size], size)
                try:
                    self._replay(one)
                    seconds = self._replay(one) / size
                except torch.OutOfMemoryError:
                    break
                if quickest is None or seconds < quickest[0]:
                    quickest = seconds, size
            if quickest is not None and quickest[1] != len(args[0]):
                self.calls[name] = in_batches(every, quickest[1])

    def _replay(self, calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> float:
        import torch

        from autolabel.models.runtime import forward_pass
        from autolabel.protocols import Runtime

        info = self.models["detector"].info
        started = time.perf_counter()
        with forward_pass(Runtime(info.device, info.dtype)):
            for network, args, kwargs in calls:
                network(*args, **kwargs)
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - started


class Theirs:
    """The loop of other tools."""

    def __init__(self, folder: Path, device: str, boxes: int, code: str) -> None:
        from benchmarks._reference import Reference

        self.paths = sorted((folder / "images").iterdir())
        self.reference = Reference(Checkpoints(folder), device, code, boxes, device.startswith("cuda"))
        self.given: dict[str, np.ndarray] = {}

    def prepare(self, boxes: str) -> dict[str, Any]:
        """Take the boxes that both sides have in common, and find the scores that give as many."""
        self.given = {name: one["boxes"] for name, one in pickle.loads(Path(boxes).read_bytes()).items()}
        self.reference.prepare(self.paths)
        self.said: list[dict[str, Any]] = []
        return {}

    def run(self, *, per_class: bool = False) -> dict[str, Any]:
        """Label all images."""
        self.reference.steps.clear()
        captions = [[name] for name in CLASSES] if per_class else [CLASSES]
        started = time.perf_counter()
        self.said = self.reference.run(self.paths, self.given, captions)
        return {"seconds": time.perf_counter() - started, "steps": dict(self.reference.steps)}

    def answers(self, out: str) -> dict[str, Any]:
        """Keep what was said last."""
        said = self.said
        for path, one in zip(self.paths, said, strict=True):
            one["proposals"] = self.reference.proposals[path]
        Path(out).write_bytes(pickle.dumps({path.name: one for path, one in zip(self.paths, said, strict=True)}))
        return {"boxes": [len(one["found"]) for one in said]}


def _first(call: tuple[Any, tuple[Any, ...], dict[str, Any]]) -> Any:
    return call[1][0] if call[1] else call[2]["image_embeddings"]


def main() -> None:
    """Answer commands until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["ours", "theirs"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("options", type=json.loads)
    arguments = parser.parse_args()
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not end up among the answers
    side = (Ours if arguments.side == "ours" else Theirs)(arguments.folder, **arguments.options)
    for line in sys.stdin:
        values = json.loads(line)
        command = values.pop("command")
        answer = {} if command == "ready" else getattr(side, command)(**values)
        out.write(json.dumps({**answer, "peak_mb": peak_mb()}) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
