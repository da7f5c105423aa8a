from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from training import runtime


def test_there_is_nothing_to_go_on_from_at_first(tmp_path: Path) -> None:
    assert runtime.load_checkpoint(tmp_path / "checkpoint.pt") is None


def test_a_training_goes_on_from_what_it_saved(tmp_path: Path) -> None:
    path = tmp_path / "detector" / "checkpoint.pt"
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    runtime.save_checkpoint(path, model, optimizer, average=runtime.Average(model), elapsed_s=12.5, step=7, best=0.4)
    state = runtime.load_checkpoint(path)
    assert state is not None
    assert (state["elapsed_s"], state["step"], state["best"]) == (12.5, 7, 0.4)
    again = nn.Linear(3, 2)
    again.load_state_dict(state["model"])
    torch.testing.assert_close(again.weight, model.weight)
    torch.testing.assert_close(state["average"]["weight"], model.weight.detach())
    torch.optim.AdamW(again.parameters()).load_state_dict(state["optimizer"])
    assert [entry.name for entry in path.parent.iterdir()] == ["checkpoint.pt"]
