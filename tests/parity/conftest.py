"""The parity tests use the small checkpoints of the model tests."""

from tests.models.conftest import _one_thread, checkpoint, cpu

__all__ = ["_one_thread", "checkpoint", "cpu"]
