"""A backend of fakes behind real HTTP."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

import autolabel
from autolabel.config import Recipe
from autolabel.interactive import Labeler, recipe_of
from autolabel.loading import models_for
from autolabel.serving import ServeOptions
from autolabel_connectors.serve.label_studio import Service
from tests.conftest import Models as Fakes
from tests.fakes import BoxSegmenter

RECIPE = Recipe(prompt="scratch. dent.")
CONFIG = """<View><Image name="image" value="$image"/>
<RectangleLabels name="box" toName="image" smart="true"><Label value="scratch"/><Label value="dent"/></RectangleLabels>
<KeyPointLabels name="point" toName="image" smart="true"><Label value="scratch"/><Label value="dent"/>
<Label value="crack"/></KeyPointLabels>
<BrushLabels name="mask" toName="image"><Label value="scratch"/><Label value="dent"/><Label value="crack"/>
</BrushLabels>
</View>"""


class CountingSegmenter(BoxSegmenter):
    """Takes points: the answer is a square of 8 px around the first, or the box; counts what it encodes."""

    points = True

    def __init__(self) -> None:
        super().__init__()
        self.embedded = 0

    def embed(self, image: Any) -> Any:
        self.embedded += 1
        return image

    def segment_prompts(self, embedded: Any, prompts: Any) -> Any:
        import numpy as np

        boxes = []
        for prompt in prompts:
            if prompt.box is not None:
                boxes.append(prompt.box.xyxy)
            else:
                x, y = prompt.positive[0]
                boxes.append((x - 4, y - 4, x + 4, y + 4))
        return self.predict_batch([embedded], [np.array(boxes, np.float32)])[0]


def labeler(recipe: Recipe = RECIPE, **given: Any) -> Labeler:
    return Labeler(recipe, models_for(recipe, given={**Fakes(), **given}))


@contextmanager
def serving(made: Labeler, options: ServeOptions | None = None, puller: Any = None) -> Iterator[str]:
    """Serve on a free port until the end of the block; yields the address."""
    service = Service(made, options or ServeOptions(), puller)
    service.load()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        server = uvicorn.Server(uvicorn.Config(service.app(), log_config=None, access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def install_squares(folder: Path) -> dict[str, str]:
    """Install a detector backend ``squares`` into ``folder``; returns the environment in which it is found."""
    information = folder / "squares-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: squares\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[autolabel.detectors]\nsquares = squares:load\n")
    (folder / "squares.py").write_text(
        "from tests.fakes import SquareDetector\ndef load(ref, runtime):\n    return SquareDetector()\n"
    )
    paths = os.pathsep.join([str(folder), str(Path(__file__).parents[2])])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def of_run(run: autolabel.Run) -> Labeler:
    """What labels as a finished run did, with the fakes."""
    recipe = recipe_of(run.manifest, {})
    return Labeler(recipe, models_for(recipe, given=Fakes()), run=run.manifest)
