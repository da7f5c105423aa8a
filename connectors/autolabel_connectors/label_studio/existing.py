"""What a project holds of a run already: compared page by page, brought up to date, and remembered for what is new."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from autolabel_connectors.label_studio.compose import Wanted
from autolabel_connectors.label_studio.edits import Edit, find_edit, send_edits
from autolabel_connectors.label_studio.errors import MissingError
from autolabel_connectors.label_studio.remote import Key, RemoteTask, chunks, pages_ahead, read_tasks
from autolabel_connectors.label_studio.session import Session

_WRITERS = 4


@dataclass(slots=True)
class Existing:
    """One look at the project. ``seen`` are our tasks by what they show, ``urls`` the addresses of their images.

    ``healing``: an earlier look of this push was cut off, and has told already what it found.
    """

    session: Session
    healing: bool = False
    seen: dict[Key, int] = field(default_factory=dict)
    by_content: dict[str, list[tuple[Key, int]]] = field(default_factory=dict)
    twins: list[RemoteTask] = field(default_factory=list)
    urls: set[str] = field(default_factory=set)
    total: int = 0
    added: int = 0

    def compare(self) -> None:
        """Compare our tasks with the run, send what differs, and remove tasks that are there twice."""
        session, done = self.session, 0
        with ThreadPoolExecutor(_WRITERS) as pool, pages_ahead(session.api, session.project.id) as pages:
            for tasks, self.total in pages:
                found = [edit for task in tasks if (edit := self._edit(task)) is not None]
                if not session.dry:
                    self.added += send_edits(session, found, pool)
                done += len(tasks)
                session.on_step("tasks compared", done, self.total)
        if not session.dry:
            session.receipts.note_all({session.task_note(path): [uid, task] for (uid, path), task in self.seen.items()})
        self._remove_twins()

    def _edit(self, task: RemoteTask) -> Edit | None:
        """Say what brings a task up to date; None where it is to be left alone."""
        self.urls.add(str(task.data.get(self.session.project.controls.image_key)))
        if self._is_twin(task) or (wanted := self._wanted(task)) is None:
            return None
        edit = find_edit(self.session, task, wanted)
        if not (edit.needed or self.healing):
            self.session.account.counts["tasks unchanged"] += 1
        return edit

    def _is_twin(self, task: RemoteTask) -> bool:
        if task.key is None:
            return True
        if task.key in self.seen:
            self.twins.append(task)
            return True
        self.seen[task.key] = task.id
        if (sent := self.session.in_flight.pop(task.key, None)) is not None:
            self.session.account.tell("create task", task.key[1], sent)
        self.by_content.setdefault(task.key[0], []).append((task.key, task.id))
        return False

    def _wanted(self, task: RemoteTask) -> Wanted | None:
        """Compose what a task should show; None where the run has no image for it, or people worked on it."""
        assert task.key is not None
        try:
            item = self.session.run[task.key[1]]
        except KeyError:
            item = None
        left = ""
        if item is None or item.image.id != task.key[0]:
            left = "tasks left that the run has no image for"
        elif task.people:
            left = "tasks left as people have them"
        if item is None or left:
            self.session.account.counts[left] += not self.healing
            return None
        return self.session.composer.compose(item)

    def _remove_twins(self) -> None:
        """Remove tasks that are there twice, unless somebody has worked on them since."""
        session = self.session
        for batch in chunks(self.twins, 100):
            ids = [task.id for task in batch]
            for task in (task for page, _ in read_tasks(session.api, session.project.id, ids) for task in page):
                assert task.key is not None
                if task.people:
                    session.account.warn(
                        f"{task.key[1]}: tasks {self.seen[task.key]} and {task.id} show the same image, and people "
                        "worked on the second; delete one of them"
                    )
                    continue
                session.account.tell("remove task", task.key[1], "it is there twice", key=str(task.id))
                if not session.dry:
                    self.total -= 1
                    try:
                        session.api.request(
                            "DELETE", f"/api/tasks/{task.id}/", doing="remove a task that is there twice"
                        )
                    except MissingError:
                        continue
