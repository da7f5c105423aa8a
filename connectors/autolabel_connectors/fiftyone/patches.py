"""Tags that a reviewer gave to patches, brought to the regions they are of.

In a patches view the app offers to tag patches before it offers to tag labels, and FiftyOne keeps a patch's tags in the
view's own temporary dataset. A reviewer means the region, so that is where its tags go.
"""

from __future__ import annotations

from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from autolabel_connectors.fiftyone import fields
from autolabel_connectors.fiftyone.verdicts import is_verb

_VERBS = rf"^\s*({fields.ACCEPT}|{fields.REJECT}|{fields.UNDO}|{fields.RELABEL_PREFIX}.*)\s*$"

_PLACES = (fields.ANNOTATIONS, fields.DOUBTS)


def collect(fo: ModuleType, dataset: Any) -> int:
    """Move verbs from the patches of a dataset's regions to the regions; returns on how many regions."""
    database = fo.core.odm.get_db_conn()
    samples = dataset._sample_collection
    found = database.datasets.find({"sample_collection_name": {"$regex": r"^patches\."}}, {"sample_collection_name": 1})
    moved = 0
    for collection in [database[entry["sample_collection_name"]] for entry in found]:
        tagged = {"tags": {"$regex": _VERBS, "$options": "i"}}
        for patch in list(collection.find(tagged, {"_sample_id": 1, "tags": 1})):
            source = samples.find_one({"_id": patch.get("_sample_id")}, {"tags": 1})
            if source is None:
                continue  # of another dataset
            # A patch starts with its image's tags; those are not about the region.
            verbs = [tag for tag in patch["tags"] if is_verb(tag) and tag not in (source.get("tags") or ())]
            moved += any(_tag(samples, source["_id"], place, patch["_id"], verbs) for place in _PLACES)
            collection.update_one({"_id": patch["_id"]}, {"$pullAll": {"tags": verbs}})
    return moved


def _tag(samples: Any, sample: Any, place: str, region: Any, verbs: list[str]) -> bool:
    """Add tags to one region of one sample; False when it is not there."""
    if not verbs:
        return False
    result = samples.update_one(
        {"_id": sample, f"{place}.detections._id": region},
        {
            "$addToSet": {f"{place}.detections.$.tags": {"$each": verbs}},
            "$set": {"last_modified_at": datetime.now(UTC).replace(tzinfo=None)},
        },
    )
    return bool(result.matched_count)
