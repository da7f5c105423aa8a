"""The names a review dataset uses: fields, attributes and tags, each with what it means."""

from __future__ import annotations

ANNOTATIONS = "annotations"
DOUBTS = "doubts"
IMAGE_ISSUES = "image_issues"
SHOWN = "shown"
"""What a refresh left in a sample, so that a later pass can tell what people did to it."""

ACCEPT, REJECT, RELABEL, UNDO = "accept", "reject", "relabel", "undo"
REVIEWED, SKIP = "reviewed", "skip"
RELABEL_PREFIX = "relabel:"

SAMPLE_FIELDS = {
    "path": "The image's name in the run.",
    "image_id": "sha256 of the image file.",
    "review": "todo, reviewed or skipped.",
    "reviewed_by": "Who reviewed the image.",
    ANNOTATIONS: "The run's annotations, people's decisions laid over the models'.",
    DOUBTS: "Where a noise pass thinks that something was overlooked, or a better place for what is there.",
    IMAGE_ISSUES: "Doubts about the whole image: duplicate, outlier, blur …",
    "annotation_count": "Annotations of the image.",
    "human_count": "Annotations that people decided about.",
    "flagged_count": "Open flagged issues of the image, its annotations and its doubts.",
    "worst_quality": "Quality of the worst open issue, 0 worst; of a flagged one where there is one.",
    "issue_kinds": "Kinds of the open flagged issues.",
    "uncertainty": "Of the least certain annotation: 1 less the margin between its two most probable classes.",
    "disagreements": "Annotations whose detector and classifier name different classes.",
    "duplicate_group": "Images that a noise pass found to be the same have the same group.",
    SHOWN: "What was shown here, to tell what people changed. Not for editing.",
}

ATTRIBUTES = {
    "annotation_id": "The annotation's id in the run.",
    "origin": "model, or human where a person decided.",
    "decided_by": "Who decided about this region.",
    "detector_label": "The class the detector scored highest.",
    "detector_score": "The detector's score of that class, 0-1.",
    "classifier_label": "The class the classifier finds most probable.",
    "classifier_prob": "The classifier's probability of that class, 0-1.",
    "disagree": "The two models name different classes.",
    "uncertainty": "1 less the margin between the two most probable classes.",
    "mask_score": "The segmenter's predicted IoU of the mask, 0-1.",
    "flagged": "An issue about this region is flagged: look at it.",
    "kind": "Kind of its worst open issue.",
    "issues": "Kinds of its open flagged issues.",
    "quality": "Quality of its worst open issue, 0 worst.",
    "suggested_label": "The class an issue suggests.",
    "reason": "Why an issue is there.",
    "related": "Other annotations or images of a conflict or a duplicate.",
}
READ_ONLY_ATTRIBUTES = ("annotation_id", "origin")
