"""What a run sets for its process before it builds anything."""

import pytest
import torch

from octvideo.assembly import build_model
from octvideo.assembly.start import running
from octvideo.config import load_config
from octvideo.engine.distributed import Processes

TINY = ["RESNET.DEPTH=26", "RESNET.WIDTH_PER_GROUP=8", "MODEL.NUM_CLASSES=4"]


@pytest.fixture
def cuda_flags(monkeypatch):
    """What convolutions and products follow: (benchmark, TF32 in cuDNN, precision); as before
    afterwards."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.allow_tf32, torch.get_float32_matmul_precision()
    yield lambda: (cudnn.benchmark, cudnn.allow_tf32, torch.get_float32_matmul_precision())
    cudnn.benchmark, cudnn.allow_tf32 = before[:2]
    torch.set_float32_matmul_precision(before[2])


@pytest.mark.parametrize(
    ("device", "settings", "flags"),
    [("cuda", [], (True, True, "high")),
     ("cuda", ["CUDA.CUDNN_BENCHMARK=false", "CUDA.TF32=false"], (False, False, "highest")),
     ("cuda", ["TRAIN.DETERMINISTIC=true"], (False, True, "high")),
     ("cpu", [], None)],
)  # fmt: skip
def test_cuda_kernels_are_chosen_as_the_settings_say(
    repo, tmp_path, cuda_flags, device, settings, flags
):
    unchanged = cuda_flags()
    cfg = load_config(repo / "configs/demo/i3d.yaml", [f"OUTPUT_DIR={tmp_path}", *settings])

    with running(cfg, Processes(device=torch.device(device))):
        pass

    assert cuda_flags() == (flags or unchanged)


def test_the_forms_of_a_network_follow_the_settings(repo):
    choices = ["MODEL.COMPUTE_IN_2D=false", "MODEL.STEM_SPACE_TO_DEPTH=true"]
    model = build_model(load_config(repo / "configs/demo/i3d.yaml", [*TINY, *choices]))
    automatic = build_model(load_config(repo / "configs/demo/i3d.yaml", TINY))

    assert model.stem.conv.in_2d is False
    assert model.stem.conv.by_space_to_depth is True
    assert automatic.stem.conv.in_2d == "auto"
    assert automatic.stem.conv.by_space_to_depth == "auto"
