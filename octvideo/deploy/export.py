"""A trained network as a file for other runtimes; each file is compared with the network when it is
written."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from octvideo.deploy.engines import relative_difference
from octvideo.deploy.fold import fold_batch_norm
from octvideo.deploy.openvino import core, exported
from octvideo.errors import ConfigError, import_optional
from octvideo.layers.conv3d_as_2d import exported_in_2d


def export_model(
    model: nn.Module, example: Tensor, path: str | Path, *, lowered: bool = False
) -> float:
    """Write `model` for clips of the example's size and any batch, and return the difference
    between its output and the network's.

    path: .pt2 (torch.export), .onnx or .xml (OpenVINO, with its .bin). example: float (N, 3, T, H,
    W) on the CPU, N of at least 2. The difference is the largest over the largest value, on the
    example and on a single clip of it, as the written file computes it. lowered: an .onnx with 2D
    convolutions and pools in place of 3D ones, for runtimes whose 3D kernels are slow or absent.
    Raises ConfigError for another suffix, OctvideoError if a runtime is missing.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise ConfigError(f"{path}: no format has this suffix; there are {', '.join(WRITERS)}")
    if lowered and path.suffix != ".onnx":
        raise ConfigError(
            f"{path}: only an .onnx is written with 2D convolutions; leave lowered out"
        )
    folded = fold_batch_norm(model).cpu()
    path.parent.mkdir(parents=True, exist_ok=True)
    with exported_in_2d() if lowered else nullcontext():
        run = WRITERS[path.suffix](folded, example, path)
    with torch.no_grad():
        return max(relative_difference(run(x), folded(x)) for x in (example, example[:1]))


Runner = Callable[[Tensor], Tensor]


def _write_torch(model: nn.Module, example: Tensor, path: Path) -> Runner:
    torch.export.save(exported(model, example), path)
    return torch.export.load(path).module()


def _write_onnx(model: nn.Module, example: Tensor, path: Path) -> Runner:
    import_optional("onnxscript", "export to ONNX", "pip install onnx onnxscript onnxruntime")
    runtime = import_optional("onnxruntime", "checking an ONNX export", "pip install onnxruntime")
    program = torch.onnx.export(
        exported(model, example),
        dynamo=True,
        verbose=False,
        input_names=["clips"],
        output_names=["logits"],
    )
    assert program is not None
    program.save(path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(
        session.run(None, {"clips": np.ascontiguousarray(x.numpy())})[0]
    )


def _write_openvino(model: nn.Module, example: Tensor, path: Path) -> Runner:
    openvino = import_optional("openvino", "export to OpenVINO", "pip install openvino")
    openvino.save_model(
        openvino.convert_model(exported(model, example)), path, compress_to_fp16=False
    )
    compiled = core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: torch.from_numpy(compiled(x.numpy())[0].copy())


WRITERS: dict[str, Callable[[nn.Module, Tensor, Path], Runner]] = {
    ".pt2": _write_torch,
    ".onnx": _write_onnx,
    ".xml": _write_openvino,
}
