from __future__ import annotations

import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from autolabel.errors import ModelError
from autolabel.models import doctor, runtime
from autolabel.models.catalogue import catalogue
from autolabel.models.runtime import forward_pass, helpers, keep_memory, pick_runtime
from autolabel.protocols import Runtime


def test_the_cpu_runs_in_float32():
    assert pick_runtime("cpu") == Runtime("cpu", "float32", False)
    assert pick_runtime("cpu", "bfloat16", offline=True) == Runtime("cpu", "bfloat16", True, exact=True)


def test_a_dtype_that_is_asked_for_is_kept_to():
    assert pick_runtime("cpu", "float32").exact
    assert not pick_runtime("cpu").exact


def test_offline_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert pick_runtime("cpu").offline


@pytest.mark.parametrize(
    ("device", "dtype", "says"), [("tpu", None, "'tpu' is not available"), ("cpu", "int8", "float32")]
)
def test_what_is_not_there_is_an_error(device, dtype, says):
    with pytest.raises(ModelError, match=says):
        pick_runtime(device, dtype)


def test_a_cuda_device_runs_in_float16(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runtime, "_no_driver", lambda: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert pick_runtime() == Runtime("cuda", "float16", False)
    with pytest.raises(ModelError, match="CUDA devices: 1"):
        pick_runtime("cuda:1")
    assert pick_runtime("cuda:0", "float32").dtype == "float32"


def test_without_a_driver_nobody_asks_torch_for_gpus():
    code = """
import sys
from autolabel.models import runtime
runtime._no_driver = lambda: True
assert runtime.cuda_devices() == 0
if sys.platform == "linux":
    assert runtime.pick_runtime().device == "cpu"
    assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_memory_is_kept_only_by_glibc_and_only_if_nobody_decided_otherwise(monkeypatch: pytest.MonkeyPatch):
    code = "from autolabel.models.runtime import keep_memory; print(keep_memory())"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert told == str(sys.platform == "linux" and "glibc" in __import__("platform").libc_ver())
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000")
    assert keep_memory.__wrapped__() is False


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel for page faults")
def test_threads_too_keep_their_memory():
    code = """
import resource, threading, torch
from autolabel.models.runtime import keep_memory
keep_memory()
def work():
    values = torch.ones(10_000_000)
    for turn in range(14):
        if turn == 10:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.relu(torch.relu(values) + 1)
    found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
found = []
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(keep_memory(), found[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    told, faults = done.stdout.split()
    # Mapped anew each time, 12 blocks of 40 MB are 117,000 pages of 4 KiB.
    assert told == "False" or int(faults) < 60_000


def overlap(runtime: Runtime, patience: float) -> bool:
    """Whether two threads can be within a forward pass at once."""
    met = threading.Barrier(2)

    def run() -> bool:
        with forward_pass(runtime):
            try:
                met.wait(patience)
            except threading.BrokenBarrierError:
                return False
        return True

    passes = [helpers().submit(run) for _ in range(2)]
    return all(each.result() for each in passes)


def test_forward_passes_take_turns_where_they_share_cores():
    assert not overlap(Runtime("cpu"), 0.2)
    assert overlap(Runtime("cuda"), 30)


def test_a_pass_may_hold_another_and_gives_no_gradients():
    import torch

    weight = torch.ones(2, requires_grad=True)
    with forward_pass(Runtime()), forward_pass(Runtime()):
        assert not (weight * 2).requires_grad
        assert torch.is_inference_mode_enabled()
    assert not torch.is_inference_mode_enabled()


def test_two_models_in_two_threads_answer_as_alone(checkpoint, cpu):
    import numpy as np

    from autolabel.models import registry
    from tests.models.random_models import picture

    image, boxes = picture(160, 120), [np.array([[5, 5, 60, 40], [20, 10, 100, 90]], np.float32)]
    segmenter = registry.load_segmenter(str(checkpoint("segmenter")), cpu)
    classifier = registry.load_classifier(str(checkpoint("classifier")), cpu)

    def masks(_=None):
        return segmenter.predict_batch([image], boxes)[0]

    def embeddings(_=None):
        return classifier.predict_batch([image], boxes, None, [["dent"], ["rust"]])[0]

    expected = masks(), embeddings()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(each) for each in [masks, embeddings] * 4]
        for one, other in zip(found[0::2], found[1::2], strict=True):
            assert one.result().masks == expected[0].masks
            np.testing.assert_array_equal(other.result().embeddings, expected[1].embeddings)


def test_every_set_lists_three_models_with_licence_and_size():
    rows = catalogue()
    assert len(rows) == 12
    assert {row.task for row in rows if row.models == "base"} == {"detector", "segmenter", "classifier"}
    assert all(row.licence for row in rows)
    assert all(row.megabytes > 0 for row in rows if row.models != "starter")


def test_the_doctor_finds_the_installation_sound(tmp_path):
    checks = {check.name: check for check in doctor.run_checks("cpu", folder=tmp_path)}
    assert checks["torch"].status == checks["device"].status == "ok"
    assert "float32" in checks["device"].detail
    assert "hub" not in checks


def test_the_doctor_says_what_is_wrong_and_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path):
    names = ["autolabel-vision", "refuel_autolabel", "opencv-python", "opencv-python-headless"]
    found = [SimpleNamespace(metadata={"Name": name}) for name in names]
    monkeypatch.setattr(doctor, "distributions", lambda: found)
    monkeypatch.setattr(doctor, "hub_reachable", lambda: False)
    checks = {check.name: check for check in doctor.run_checks("tpu", None, tmp_path / "none", hub=True)}
    assert checks["import name"].status == "fail"
    assert "pip uninstall refuel-autolabel" in checks["import name"].remedy
    assert (checks["cv2"].status, checks["hub"].status) == ("warn", "warn")
    assert (checks["device"].status, checks["disk"].status) == ("fail", "fail")
    assert all(check.remedy for check in checks.values() if check.status != "ok")
