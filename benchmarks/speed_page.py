"""Write the measured figures into ``docs/speed.md`` and its plot: ``python -m benchmarks.speed_page``.

Reads what is kept under ``benchmarks/results/``; text outside the marked parts of the page is left as it is.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks._measure import kept

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
PLOT = PAGE.parent / "pictures" / "speed.svg"
Result = Mapping[str, Any]


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Write a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def number(value: float, digits: int = 3) -> str:
    """Write a figure as a person reads it."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{float(f'{value:.{digits}g}'):g}"


def where(result: Result) -> str:
    """Say on what machine a result was measured."""
    machine = result["machine"]
    threads = machine.get("threads", machine["cores"])
    using = "" if threads == machine["cores"] else f", {threads} threads"
    device = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores{using}"
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in ("torch", "transformers", "numpy"))
    return f"*{device}, {machine['memory_gb']:g} GB, load {machine['load_at_start']} before it began; {versions}.*"


def reference_loop(result: Result) -> str:
    """Tell how many times faster the pipeline is than the loop."""
    rows = [
        ["the loop of other tools, one pass with all classes", number(result["theirs_images_per_s"]), "1"],
        [
            "autolabel",
            number(result["ours_images_per_s"]),
            "**{}** ({} to {} in single rounds)".format(
                *(number(result["times_faster"][key]) for key in ("median", "lowest", "highest"))
            ),
        ],
    ]
    if other := result.get("pass_for_each_class"):
        rows.insert(
            0, [f"the loop with a pass for each of {other['classes']} classes", number(other["images_per_s"]), ""]
        )
        rows[2][2] += f"; {number(other['times_faster'])} against a pass for each class"
    steps = sorted(result["their_steps"].items(), key=lambda item: -item[1])
    lost = ", ".join(f"{name} {share:.0%}" for name, share in steps)
    agree = result["agreement"]
    size = "x".join(map(str, result["size_wh"]))
    turns = "in turn" if result["in_turn"] else "each, one side after the other"
    return "\n\n".join(
        [
            table(["", "images/s", "times faster"], rows),
            f"{result['images']} images of {size} px with {result['boxes_per_image']} boxes each, median of "
            f"{len(result['rounds_s']['ours'])} rounds {turns}. Detector code of the loop: {result['detector_code']}. "
            f"Where the loop spends its time: {lost}.",
            f"Both say the same: masks of the same boxes have a median IoU of {agree['mask_iou_median']:.4f} "
            f"(lowest {agree['mask_iou_lowest']:.4f}), probabilities differ by at most "
            f"{number(agree['probability_differs_at_most'], 2)}, {agree['proposals_of_both']:.1%} of the "
            f"{agree['proposals']:,} boxes that the detector proposes are the same (within 2 px and 0.005 of a score)."
            f"{_graphs(result)}",
            where(result),
        ]
    )


def _graphs(result: Result) -> str:
    shares = ", ".join(f"{task} {share:.0%}" for task, share in result["passes_through_graphs"].items())
    return f" Forward passes that went through a graph of OpenVINO: {shares}." if shares else ""


def bare_forward(result: Result) -> str:
    """Tell what share of the time is forward passes."""
    share = result["share_of_bare"]
    return "\n\n".join(
        [
            table(
                ["", "images/s"],
                [
                    ["forward passes alone, best batches", number(result["bare_images_per_s"])],
                    ["the pipeline, from files to a run folder", number(result["pipeline_images_per_s"])],
                    ["share reached", f"**{share['median']:.0%}** ({share['lowest']:.0%} to {share['highest']:.0%})"],
                ],
            ),
            where(result),
        ]
    )


def stages(result: Result) -> str:
    """List the steps."""
    rows = [
        [name, number(values["ms_per_image"]), number(values["images_per_s"]), f"{values['share']:.1%}"]
        for name, values in result["stages"].items()
    ]
    return "\n\n".join([table(["step", "ms an image", "images/s", "share"], rows), where(result)])


def growth(result: Result) -> str:
    """Tell how time and memory grow."""
    images = [
        [f"{int(n):,}", number(v["label_s"]), number(v["label_cpu_s"]), number(v["peak_mb"])]
        for n, v in result["images"].items()
    ]
    boxes = [
        [n, number(v["ms_per_image"]), number(v["cpu_ms_per_image"]), number(v["peak_mb"])]
        for n, v in result["boxes"].items()
    ]
    further = ", then ".join(number(value) for value in result["cpu_ms_per_further_image"])
    return "\n\n".join(
        [
            table(["images", "seconds", "processor seconds", "peak MB"], images),
            f"A further image takes {further} ms of the processor: "
            f"{number(result['time_of_an_image_ratio'])} times as long among many as among few. The peak grows by a "
            f"factor of {number(result['peak_ratio'])}.",
            table(["boxes on an image", "ms an image", "processor ms", "peak MB"], boxes),
            where(result),
        ]
    )


def cheap(result: Result) -> str:
    """List what costs no model."""
    rows = [
        [
            name,
            number(values["seconds"]),
            number(values["images_per_s"]),
            number(values["best_images_per_s"]),
            number(values["images_per_cpu_s"]),
            number(values["peak_mb_so_far"]),
        ]
        for name, values in result["tasks"].items()
    ]
    heads = [
        f"{result['images']:,} images",
        "seconds",
        "images/s",
        "best round",
        "images a processor second",
        "peak MB so far",
    ]
    return "\n\n".join([table(heads, rows), where(result)])


def startup(result: Result) -> str:
    """List what a user waits for."""
    rows = [
        [
            name,
            number(values["seconds"]),
            number(values["best_s"]),
            "" if values["limit_s"] is None else number(values["limit_s"]),
        ]
        for name, values in result["tasks"].items()
    ]
    return "\n\n".join([table(["", "seconds, median", "best", "target"], rows), where(result)])


_PARTS: dict[str, Callable[[Result], str]] = {
    "reference_loop": reference_loop,
    "reference_loop-openvino": reference_loop,
    "reference_loop-cuda": reference_loop,
    "bare_forward": bare_forward,
    "bare_forward-cuda": bare_forward,
    "stages": stages,
    "growth": growth,
    "cheap": cheap,
    "startup": startup,
}


def plot(results: Mapping[str, Result]) -> None:
    """Draw growth, the comparison with the loop, and the stages as one SVG."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update(
        {"svg.hashsalt": "autolabel", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    )
    from matplotlib import pyplot

    drawn = [name for name in ("reference_loop", "stages", "growth") if name in results]
    if not drawn:
        return
    figure, grid = pyplot.subplots(1, len(drawn), figsize=(3.7 * len(drawn), 3.2), layout="constrained", squeeze=False)
    axes = dict(zip(drawn, grid[0], strict=True))
    if result := results.get("reference_loop"):
        speed = axes["reference_loop"]
        bars = {"loop": result["theirs_images_per_s"], "autolabel": result["ours_images_per_s"]}
        if other := result.get("pass_for_each_class"):
            bars = {"loop, a pass\nfor each class": other["images_per_s"], **bars}
        speed.barh(list(bars), list(bars.values()), color=["#b8c0cc"] * (len(bars) - 1) + ["#2f6fde"])
        speed.set_xlabel("images/s")
        speed.set_title("Models of official size")
    if result := results.get("stages"):
        parts = axes["stages"]
        items = [(name, value["share"]) for name, value in result["stages"].items()][::-1]
        colours = ["#2f6fde" if name.startswith("forward") else "#e0923c" for name, _ in items]
        parts.barh([name for name, _ in items], [100 * share for _, share in items], color=colours)
        parts.set_xlabel("% of an image's time")
        parts.set_title("Steps, one after the other")
    if result := results.get("growth"):
        grown = axes["growth"]
        sizes = [int(size) for size in result["images"]]
        grown.plot(sizes, [value["label_s"] for value in result["images"].values()], "o-", color="#2f6fde")
        grown.set(xscale="log", yscale="log", xlabel="images", ylabel="seconds", title="Time and peak memory")
        memory = grown.twinx()
        memory.plot(sizes, [value["peak_mb"] for value in result["images"].values()], "s--", color="#e0923c")
        memory.set_ylim(bottom=0)
        memory.set_ylabel("peak MB")
    PLOT.parent.mkdir(exist_ok=True)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    PLOT.write_text("".join(line.rstrip() + "\n" for line in text.getvalue().splitlines()), encoding="utf-8")


def main() -> None:
    """Fill the page's marked parts."""
    results = {name: result for name in _PARTS if (result := kept(name)) is not None}
    text = PAGE.read_text(encoding="utf-8")
    for name, write in _PARTS.items():
        part = write(results[name]) if name in results else "Not measured yet."
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text = re.sub(pattern, lambda found, part=part: f"{found[1]}\n{part}\n\n{found[2]}", text, flags=re.DOTALL)
    PAGE.write_text(text, encoding="utf-8")
    plot(results)


if __name__ == "__main__":
    main()
