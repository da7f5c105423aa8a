"""Networks on a CPU, eager and through what may be quicker: ``python -m benchmarks.cpu_engines``.

Grounding DINO-T (800 x 1066 px), SAM 2.1-T's image encoder (1024 px) and ViT-B/32 (16 crops) with random weights at
full size, and the three bundled models from pixels to answers. Each has a process of its own and each engine its turn
in every round; figures are medians. The processor's seconds are counted beside those of the clock: on a machine with
other work they are the steadier. ``--others`` adds torch.compile, and ONNX Runtime where ``onnxruntime`` and
``onnxscript`` are installed. Prints JSON; ``--table`` a table for the docs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

FULL = ("detector", "segmenter", "classifier")
STARTER = tuple(f"starter {task}" for task in FULL)
PHRASES = ("scratch", "dent", "crack", "rust", "hole", "stain")
_TOKENS = (101, 11969, 1012, 21418, 1012, 8579, 1012, 18399, 1012, 4920, 1012, 21101, 1012, 102)
_SAMPLES = Path(__file__).parents[1] / "sample_data" / "images"


def shaken(model: Any) -> Any:
    """Give every parameter random values of a trained network's size."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            else:
                parameter.copy_(noise * (0.1 if parameter.ndim < 2 else parameter[0].numel() ** -0.5))
    return model.eval()


def full_size(task: str) -> tuple[Any, tuple[Any, ...]]:
    """Return the graph of a full-size network with random weights, and arguments for it."""
    import torch

    from autolabel.models.accelerate_graphs import CropGraph, DetectorGraph, EncoderGraph
    from autolabel.models.phrases import Pass

    torch.manual_seed(0)  # the process that converts must make the same
    if task == "detector":
        from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

        from autolabel.models.grounding_dino import Network

        swin = SwinConfig(depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], out_indices=[2, 3, 4])
        config = GroundingDinoConfig(backbone_config=swin, text_config=BertConfig())
        model = shaken(GroundingDinoForObjectDetection(config))
        with torch.no_grad():  # the class head is a dot product: keep its scores away from 0 and 1
            for norm in (model.model.decoder.layer_norm, model.model.enc_output_norm):
                norm.weight.mul_(2 * config.d_model**-0.5)
                norm.bias.mul_(2 * config.d_model**-0.5)
        pixels = torch.randn(1, 3, 800, 1066)
        mask = torch.ones(1, 800, 1066, dtype=torch.long)
        return DetectorGraph(SimpleNamespace(forward=Network(model))), (pixels, mask, Pass("", (), _TOKENS, ()))
    if task == "segmenter":
        import sam2

        from autolabel.models.sam2 import build

        sam = shaken(build(Path(str(sam2.__file__)).parent / "configs" / "sam2.1" / "sam2.1_hiera_t.yaml"))
        encoder = SimpleNamespace(encoder=lambda pixels: sam.forward_image(pixels)["backbone_fpn"], _model=sam)
        return EncoderGraph(encoder), (torch.randn(1, 3, 1024, 1024),)
    import open_clip

    clip = open_clip.create_model("ViT-B-32", precision="fp32", pretrained_text=False).eval()
    return CropGraph(SimpleNamespace(encoder=clip.encode_image, _model=clip)), (torch.randn(16, 3, 224, 224),)


def starter(task: str) -> tuple[Any, Callable[[], Any]]:
    """Return a bundled model's graph, and a call from the pixels of an image to its answers."""
    from PIL import Image

    from autolabel.models import registry
    from autolabel.models.accelerate_graphs import graph_of
    from autolabel.protocols import Runtime

    model: Any = registry.load(task, registry.resolve(task), Runtime(cpu="eager"))  # type: ignore[arg-type]
    image = np.array(Image.open(_SAMPLES / "brushed_metal_01.jpg").convert("RGB"))
    corner = np.random.default_rng(0).uniform(0, 500, (8, 2))
    boxes = np.concatenate([corner, corner + 150], axis=1).astype(np.float32)
    calls: dict[str, Callable[[], Any]] = {
        "detector": lambda: model.predict_batch([image], PHRASES, 0.1),
        "segmenter": lambda: model.predict_batch([image], [boxes]),
        "classifier": lambda: model.predict_batch([image], [boxes], None, [(phrase,) for phrase in PHRASES]),
    }
    return graph_of(task, model), calls[task]  # type: ignore[arg-type]


def race(runners: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Give each runner its turn ``rounds`` times; medians of the clock's and the processor's seconds."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
    for _ in range(rounds + 1):
        for name, runner in runners.items():
            wall, cpu = time.perf_counter(), time.process_time()
            runner()
            taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    medians = {name: np.median(np.array(each[1:]), axis=0) for name, each in taken.items()}  # the first warms up
    return {name: {"s": float(wall), "cpu_s": float(cpu)} for name, (wall, cpu) in medians.items()}


def measure(what: str, threads: int, rounds: int, others: bool) -> dict[str, Any]:
    """Measure one network in this process."""
    import torch

    from autolabel.models import accelerate_openvino
    from autolabel.models.runtime import keep_memory

    torch.set_num_threads(threads)
    keep_memory()
    task = what.removeprefix("starter ")
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "graph.xml"
        if what in FULL:
            graph, args = full_size(task)
            seen = [args]
            runners: dict[str, Callable[[], Any]] = {"eager": lambda: graph.eager(*args)}
        else:
            graph, call = starter(task)
            seen = _arguments(graph, call)
            args = seen[0]
            runners = {"eager": call}
        inputs = graph.inputs(*args)
        answer = graph.eager(*args)
        memory = {"eager": _peak_gb()}
        conversion = _converted(what, inputs, target)
        infer = accelerate_openvino.compiled(target)
        got = graph.outputs(infer(inputs))
        if what in FULL:
            runners["openvino"] = lambda: infer(graph.inputs(*args))
            if others:
                runners |= _others(graph, inputs, Path(folder))
        else:
            other, quick = starter(task)
            other.install(lambda *args: other.outputs(infer(other.inputs(*args))))
            runners["openvino"] = quick
        result: dict[str, Any] = {"network": what, "threads": threads, **race(runners, rounds)}
        memory["openvino beside eager"] = _peak_gb()
    return {**result, "differs": graph.differs(answer, got, inputs), "conversion": conversion, "peak_gb": memory}


def _arguments(graph: Any, call: Callable[[], Any]) -> list[Any]:
    """Listen to what a model asks its network."""
    seen: list[Any] = []

    class Listening:
        def __getattr__(self, name: str) -> Any:
            return getattr(graph.eager, name)

        def __call__(self, *args: Any) -> Any:
            seen.append(args)
            return graph.eager(*args)

    graph.install(Listening())
    call()
    graph.install(graph.eager)
    return seen


def _converted(what: str, inputs: Any, target: Path) -> dict[str, Any]:
    """Convert in a process of its own, as a run does; returns its seconds, its memory, and the size of the file."""
    asked = {"what": what, "inputs": [[str(part.dtype), list(part.shape)] for part in inputs], "target": str(target)}
    started = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.cpu_engines", "--convert", json.dumps(asked)]
    subprocess.run(command, check=True, capture_output=True)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "s": time.perf_counter() - started,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_gb": usage.ru_maxrss / 1e6,
        "file_mb": target.with_suffix(".bin").stat().st_size / 1e6,
    }


def convert(asked: dict[str, Any]) -> None:
    """Convert what `_converted` asks for."""
    from autolabel.models import accelerate_openvino

    what = asked["what"]
    graph = full_size(what)[0] if what in FULL else starter(what.removeprefix("starter "))[0]
    accelerate_openvino.convert(graph, asked["inputs"], Path(asked["target"]))


def _others(graph: Any, inputs: Any, folder: Path) -> dict[str, Callable[[], Any]]:
    """Return what was also tried, torch.compile and ONNX Runtime; what fails to convert is said and left out."""
    import torch

    tensors, network = tuple(torch.from_numpy(np.array(part)) for part in inputs), graph.network().eval()
    runners: dict[str, Callable[[], Any]] = {}
    try:
        compiled = torch.compile(network)
        started = time.perf_counter()
        compiled(*tensors)
        print(f"torch.compile took {time.perf_counter() - started:.0f} s", file=sys.stderr)
        runners["torch.compile"] = lambda: compiled(*tensors)
    except Exception as error:
        print(f"torch.compile: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    try:
        import onnxruntime

        path = folder / "network.onnx"
        torch.onnx.export(network, tensors, path, dynamo=True, opset_version=20, verbose=False)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        feed = {each.name: part for each, part in zip(session.get_inputs(), inputs, strict=True)}
        runners["onnxruntime"] = lambda: session.run(None, feed)
    except Exception as error:
        print(f"ONNX Runtime: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    return runners


def _peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def machine() -> dict[str, Any]:
    """Say what this was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    packages = {name: version(name) for name in ("torch", "openvino", "transformers", "open-clip-torch")}
    load = os.getloadavg() if hasattr(os, "getloadavg") else ()
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "load": load, **packages}


def table(rows: list[dict[str, Any]]) -> str:
    """Write the rows as a table of Markdown."""
    lines = [
        "| network | threads | eager, s | OpenVINO, s | gain (clock) | gain (processor) | conversion, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        eager, quick = row["eager"], row["openvino"]
        lines.append(
            f"| {row['network']} | {row['threads']} | {eager['s']:.3f} | {quick['s']:.3f} "
            f"| {eager['s'] / quick['s']:.2f} | {eager['cpu_s'] / quick['cpu_s']:.2f} | {row['conversion']['s']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=[*FULL, *STARTER], choices=[*FULL, *STARTER])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--others", action="store_true", help="also torch.compile and ONNX Runtime")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--convert", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert:
        convert(json.loads(options.convert))
        return
    if options.one:
        warnings.simplefilter("ignore")
        print(json.dumps(measure(options.networks[0], options.threads[0], options.rounds, options.others)))
        return
    rows = []
    for network in options.networks:
        for threads in options.threads:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.cpu_engines", "--one"]
            command += ["--networks", network, "--threads", str(threads), "--rounds", str(options.rounds)]
            environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
            if options.others:
                command.append("--others")
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            rows.append(json.loads(done.stdout.strip().splitlines()[-1]))
    print(table(rows) if options.table else json.dumps({"machine": machine(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
