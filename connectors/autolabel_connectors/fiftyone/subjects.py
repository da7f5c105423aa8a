"""What a run has to show, image by image: annotations, open issues, decisions, and where the file lies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from autolabel import corrections
from autolabel.corrections import SAME_OBJECT_IOU, ImageDecisions, overlap_iou
from autolabel.issues import FILE, read_issues, read_notes
from autolabel.types import AnnotatedImage, Image, LabelIssue
from autolabel_connectors.fiftyone.documents import Subject, duplicate_groups

if TYPE_CHECKING:
    from autolabel.dataset import Run


@dataclass
class Doubts:
    """A run's label issues by image, without those that people answered since; ``lost`` are about gone annotations."""

    by_path: Mapping[str, Sequence[LabelIssue]]
    groups: Mapping[str, str]
    found_at: str
    lost: int = 0

    @classmethod
    def of(cls, run: Run) -> Doubts:
        """Read the last noise pass of a run."""
        found = read_issues(run.path)
        by_path: dict[str, list[LabelIssue]] = {}
        for issue in found:
            by_path.setdefault(issue.path, []).append(issue)
        return cls(by_path, duplicate_groups(found), _found_at(run.path))

    def open(self, item: AnnotatedImage, decided: ImageDecisions | None) -> tuple[LabelIssue, ...]:
        """Return what is still in doubt about one image."""
        known = {annotation.id for annotation in item.annotations}
        kept = []
        for issue in self.by_path.get(item.image.path, ()):
            if issue.image_id != item.image.id or _answered(issue, decided, self.found_at):
                continue
            if issue.annotation_id is not None and issue.annotation_id not in known and issue.box is None:
                self.lost += 1
                continue
            kept.append(issue)
        return tuple(kept)

    def rank(self, path: str) -> tuple[bool, float, str]:
        """Order images by what is in doubt about them, the worst first."""
        issues = self.by_path.get(path, ())
        return (
            not any(issue.flagged for issue in issues),
            min((issue.quality for issue in issues), default=2.0),
            path,
        )


@dataclass
class Files:
    """Where images lie for the app: the file itself, or a copy where a browser cannot read it.

    Files of other machines are fetched with ``fetch``, else left out; formats that browsers do not show are converted.
    """

    run: Run
    fetch: bool = False
    remote: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def place(self, image: Image) -> Path | None:
        """Return the file to show, or None when there is none on this machine."""
        local = self.run.local_path(image)
        if local is not None and local.suffix.lower() not in _UNSHOWN:
            return local.absolute()
        copy = (self.run.path / FOLDER / "images" / f"{image.id[:32]}.png").absolute()
        if copy.is_file():
            return copy
        if local is None and not self.fetch:
            self.remote.append(image.path)
            return None
        return self._copied(image, copy)

    def _copied(self, image: Image, copy: Path) -> Path | None:
        from PIL import Image as Pillow

        from autolabel.errors import AutolabelError

        try:
            pixels = self.run.read_image(image)
        except (AutolabelError, OSError) as error:
            self.failed[image.path] = str(error)
            return None
        copy.parent.mkdir(parents=True, exist_ok=True)
        building = copy.with_suffix(".part")
        Pillow.fromarray(pixels).save(building, "PNG", compress_level=1)
        building.replace(copy)
        return copy


FOLDER = "review"
_UNSHOWN = frozenset((".tif", ".tiff", ".jp2", ".j2k", ".pbm", ".pgm", ".ppm", ".pnm", ".heic", ".heif", ".dib"))


def subjects(run: Run, files: Files, doubts: Doubts, wanted: frozenset[str] | None = None) -> Iterator[Subject]:
    """Yield what there is to show, in the order of the paths; ``wanted`` paths only, if given."""
    standing = corrections.standing([*run.corrections(), *run.reviews()])
    for item in run:
        image = item.image
        if wanted is not None and image.path not in wanted:
            continue
        file = files.place(image)
        if file is None:
            continue
        decided = standing.get((image.path, image.id))
        group = doubts.groups.get(image.path)
        yield Subject(item, str(file), doubts.open(item, decided), decided, group)


def _answered(issue: LabelIssue, decided: ImageDecisions | None, found_at: str) -> bool:
    """Tell whether a person spoke about what an issue is about, after it was found."""
    if decided is None:
        return False
    review = decided.review
    if review is not None and review.state == "complete" and review.at > found_at:
        return True
    later = {uid: c for uid, c in decided.corrections.items() if c.at > found_at}
    if issue.annotation_id is not None:
        return issue.annotation_id in later
    box = issue.box
    if box is None:
        return False
    claimed = [place for c in later.values() if (place := c.box or c.before_box) is not None]
    return any(overlap_iou((box, None), (place, None)) > SAME_OBJECT_IOU for place in claimed)


def _found_at(run: Path) -> str:
    """Return when the issues were found, UTC: as the noise pass noted it, else when the file was written."""
    noted = (read_notes(run) or {}).get("at")
    if isinstance(noted, str) and noted:
        return noted
    path = run / FILE
    seconds = path.stat().st_mtime if path.is_file() else 0.0
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")
