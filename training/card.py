"""Write the figures of ``metrics.json`` into the model card: ``python -m training.card``; a test compares the two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from training.evaluate import METRICS
from training.runtime import STARTER

CARD: Final = STARTER / "MODEL_CARD.md"
BEGIN: Final = "<!-- figures: python -m training.card -->"
END: Final = "<!-- end of figures -->"


def main() -> None:
    """Replace what stands between the marks."""
    text = CARD.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    section = figures(json.loads(METRICS.read_text(encoding="utf-8")))
    CARD.write_text(f"{before}{BEGIN}\n{section}{after}", encoding="utf-8")


def figures(metrics: Mapping[str, Any]) -> str:
    """Markdown of all figures, with the targets beside them."""
    return "\n".join([*_summary(metrics), "", *_classes(metrics), "", *_words(metrics), "", *_photos(metrics), ""])


def _summary(metrics: Mapping[str, Any]) -> list[str]:
    whole, part = metrics["end_to_end"], metrics["end_to_end"]["unseen_surfaces"]
    seen, unseen = whole["intervals"], part["intervals"]
    masks, crops, words = metrics["segmenter"], metrics["classifier"], metrics["phrasings"]
    surfaces = " and ".join(part["surfaces"])
    seconds = metrics["seconds"]
    rows = [
        ("box AP50, end to end", seen["box"]["ap50"], unseen["box"]["ap50"], "≥ 0.80"),
        ("box AP (IoU 0.50–0.95)", seen["box"]["ap"], unseen["box"]["ap"], "≥ 0.50"),
        ("mask AP50, end to end", seen["mask"]["ap50"], unseen["mask"]["ap50"], "≥ 0.70"),
        ("mask AP", seen["mask"]["ap"], unseen["mask"]["ap"], ""),
        ("mask IoU, true boxes as prompts", masks["miou"], masks["miou_unseen_surfaces"], "≥ 0.85"),
        ("filling the true box, for comparison", masks["box_fill"], None, ""),
        ("classifier top-1, true boxes", crops["top1"], None, "≥ 0.95"),
        ("classifier top-1 with synonyms", crops["top1_synonyms"], None, ""),
        ("classifier's expected calibration error", crops["expected_calibration_error"], None, "≤ 0.05"),
        (
            "false boxes on a clean picture, default thresholds",
            whole["clean"]["boxes_per_image"],
            part["clean"]["boxes_per_image"],
            "≤ 0.1",
        ),
        ("box AP50 lost with synonyms", words["synonyms"]["ap50_lost"], None, "≤ 0.05"),
        ("weights, MB", metrics["weights_mb"]["all"], None, "≤ 40"),
        (
            f"seconds for {seconds['size_wh'][0]} × {seconds['size_wh'][1]} px, three stages, {seconds['cores']} cores",
            seconds["all_stages"],
            None,
            "≤ 1.5",
        ),
    ]
    clean = whole["clean"]["images"]
    return [
        f"Split *{metrics['split']}*, {metrics['pictures']} pictures ({clean} of them clean), "
        f"{part['pictures']} of them of {surfaces}. In brackets: 95 % interval.",
        "",
        f"| | all | {surfaces} alone | wanted |",
        "|---|---|---|---|",
        *(f"| {name} | {_value(first)} | {_value(second)} | {target} |" for name, first, second, target in rows),
    ]


def _classes(metrics: Mapping[str, Any]) -> list[str]:
    rows = metrics["end_to_end"]["proposals"]["classes"]
    masks, crops = metrics["segmenter"], metrics["classifier"]["top1_per_class"]
    lines = [
        "| class | truths | box AP50 | mask AP50 | precision | recall | mask IoU | box-fill | top-1 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        values = [row["box_ap50"], row["mask_ap50"], row["precision"], row["recall"]]
        values += [masks["miou_per_class"].get(name), masks["box_fill_per_class"].get(name), crops.get(name)]
        lines.append(f"| {name} | {row['truths']} | " + " | ".join(_value(value) for value in values) + " |")
    return [*lines, "", "Precision and recall are of the boxes above the default thresholds, at IoU 0.5."]


def _words(metrics: Mapping[str, Any]) -> list[str]:
    words, unknown = metrics["phrasings"], metrics["unknown_words"]
    lines = [
        f"| prompts, on {words['names']['pictures']} pictures, the detector's boxes | box AP50 | lost |",
        "|---|---|---|",
    ]
    lines += [
        f"| {way}: {', '.join(row['prompts'])} | {_value(row['ap50'])} | {row['ap50_lost']:.3f} |"
        for way, row in words.items()
    ]
    shown = unknown["pictures"]
    lines += ["", f"| absent words, on {shown} pictures with defects | best score, median | 95th percentile | boxes |"]
    lines += ["|---|---|---|---|"]
    for kind, row in unknown["alone"].items():
        name = f"{kind.replace('_', ' ')}: {', '.join(row['words'])}" if "words" in row else "the class names"
        lines.append(
            f"| {name} | {_value(row['best_score_median'])} | {_value(row['best_score_95th_percentile'])} "
            f"| {_value(row['annotations_per_picture'])} a picture |"
        )
    among, absent = unknown["among_class_names"], unknown["classes_not_in_the_picture"]
    never = ", ".join(unknown["alone"]["never_seen"]["words"])
    return [
        *lines,
        "",
        f"With {never} among the class names, {among['labelled_with_an_unknown_word']} of {among['annotations']} "
        f"labels were one of them. {absent['annotations']} of {absent['of']} labels were of a class that the picture "
        "does not show.",
    ]


def _photos(metrics: Mapping[str, Any]) -> list[str]:
    photos: Mapping[str, Any] = metrics.get("photos", {})
    if not photos:
        return []
    lines = [
        "Real photographs, zero-shot, by the names of their categories; nothing was tuned on them:",
        "",
        "| set | prompt | photos, truths | box AP50 | mask AP50 | false boxes on a clean photo | found, of, false |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in photos.items():
        counts = row["found_at_the_default_threshold"].items()
        found = ", ".join(f"{label} {hit} of {of} ({false} false)" for label, (hit, of, false) in counts)
        clean = row["clean"]["boxes_per_image"] if row["clean"]["images"] else None
        lines.append(
            f"| {name.replace('_', ' ')} | {row['prompt']} | {row['photos']}, {row['truths']} "
            f"| {_value(row['box']['ap50'])} | {_value(row['mask']['ap50'])} | {_value(clean)} | {found} |"
        )
    return lines


def _value(value: Any) -> str:
    """Write a figure with its interval, a number, or a dash for what is not known."""
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return f"{value['value']:.3f} ({value['low']:.3f}–{value['high']:.3f})"
    return f"{value:.3f}" if isinstance(value, float) and value < 10 else f"{value:.1f}"


if __name__ == "__main__":
    main()
