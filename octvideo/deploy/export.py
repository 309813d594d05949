"""A trained network as a file for other runtimes; each is compared with the network when it is
written."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.copies import copied
from octvideo.deploy.engines import TOLERANCE, relative_difference
from octvideo.deploy.fold import fold_batch_norm
from octvideo.deploy.openvino import OpenVINO, exported, save_graph
from octvideo.errors import CheckpointError, ConfigError, OctvideoError, import_optional, logger
from octvideo.files import appear_together, is_there
from octvideo.layers.conv3d_as_2d import exported_in_2d

_NAMED = 8  # nodes in a warning


def export_model(
    model: nn.Module, example: Tensor, path: str | Path, *, lowered: bool = False
) -> float:
    """Write `model` for clips of the example's size and any batch, and return the difference
    between its output and the network's.

    path: .pt2 (torch.export), .onnx or .xml (OpenVINO, with its .bin). example: float (N, 3, T, H,
    W) on the CPU, N of at least 2. The difference is the largest over the largest value, on the
    example and on a single clip of it, as the written file computes it. lowered: an .onnx with 2D
    convolutions and pools in place of 3D ones, for runtimes whose 3D kernels are slow or absent;
    those that have no such form are named in a warning.
    Raises ConfigError for another suffix or a folder, OctvideoError if a runtime is missing, if the
    difference is above 1e-4 or if the file cannot be written; a file that was there is then
    unchanged.
    """
    path = Path(path)
    require_format(path, lowered=lowered)
    with appear_together(path) as unfinished:
        return write_network(model, example, unfinished, lowered=lowered)


def require_format(path: Path, *, lowered: bool) -> None:
    """Raise ConfigError for a folder, and for a suffix that has no format, or none with 2D
    convolutions."""
    if path.suffix not in WRITERS:
        raise ConfigError(f"{path}: no format has this suffix; there are {', '.join(WRITERS)}")
    if lowered and path.suffix != ".onnx":
        raise ConfigError(
            f"{path}: only an .onnx is written with 2D convolutions; leave lowered out"
        )
    if is_there(path) and path.is_dir():
        raise ConfigError(f"{path}: is a folder; name a file to write")


def write_network(model: nn.Module, example: Tensor, path: Path, *, lowered: bool) -> float:
    """`export_model` straight to `path`, which exists nowhere yet."""
    folded = fold_batch_norm(model).cpu()
    with exported_in_2d() if lowered else nullcontext():
        run = WRITERS[path.suffix](folded, example, path)
    if lowered:
        _warn_of_3d(path)
    difference = written_difference(run, copied(model).eval().cpu(), example)
    if not difference <= TOLERANCE and example.dtype == torch.float32:
        raise OctvideoError(
            f"{path.name}: what was written differs by {difference:.1e} from the network; the rule"
            f" is {TOLERANCE:.0e}, and nothing is written; export to another format"
        )
    return difference


def _warn_of_3d(path: Path) -> None:
    """Name the nodes of an .onnx whose kernels are 3D."""
    onnx = import_optional("onnx", "export to ONNX", "pip install onnx onnxscript onnxruntime")
    nodes = onnx.load(path, load_external_data=False).graph.node
    deep = [node.name for node in nodes if _is_3d(node)]
    if deep:
        more = f" and {len(deep) - _NAMED} more" if len(deep) > _NAMED else ""
        logger.warning(
            "%s: %s%s stay in 3D, which has no 2D form (docs/deploy.md); try a runtime that has 3D"
            " kernels",
            path.name,
            ", ".join(deep[:_NAMED]),
            more,
        )


def _is_3d(node: Any) -> bool:
    """Of a convolution or a pool; other nodes have no kernel."""
    return any(a.name == "kernel_shape" and len(a.ints) == 3 for a in node.attribute)


@torch.no_grad()
def written_difference(run: nn.Module, model: nn.Module, example: Tensor) -> float:
    """The largest relative difference between what was written and what it was made of, on the
    example and on a single clip of it."""
    each = [relative_difference(run(x), model(x)) for x in (example, example[:1])]
    return float(torch.tensor(each).max())  # NaN if one is; Python's max may lose it


def sha256_of(contents: Sequence[bytes]) -> str:
    """The digest of `contents_of` an exported network, one after the other."""
    digest = sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()


class _FileNetwork(nn.Module, ABC):
    """The network of a file, on the CPU. A pickle names the file, which must still be that one
    where it is loaded."""

    _run: Any

    def __init__(self, path: Path, content: bytes = b"") -> None:
        """content: of the file, if it was read, as another one may have replaced it since."""
        super().__init__()
        content = content or path.read_bytes()
        self.path, self.sha256 = path.absolute(), sha256_of([content])
        self._run = self._read(content)

    @abstractmethod
    def _read(self, content: bytes) -> Any:
        """What `forward` runs."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_run"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        content = self.path.read_bytes() if self.path.is_file() else b""
        if sha256_of([content]) != self.sha256:
            raise CheckpointError(
                f"{self.path}: is another file than the one that was pickled, or none; load it with"
                " octvideo.load in this process"
            )
        self._run = self._read(content)


class ONNX(_FileNetwork):
    """An ONNX file in onnxruntime."""

    def _read(self, content: bytes) -> Any:
        runtime = import_optional("onnxruntime", "reading ONNX", "pip install onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Where weights lie that are too large for the file.
        folder = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(folder, str(self.path.parent))
        return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def forward(self, x: Tensor) -> Tensor:
        name = self._run.get_inputs()[0].name
        return torch.from_numpy(self._run.run(None, {name: x.contiguous().numpy()})[0])


class Program(_FileNetwork):
    """A file of torch.export."""

    def _read(self, content: bytes) -> Any:
        # In a tuple, for as a submodule it would refuse to be put into evaluation mode, where it
        # is.
        return (torch.export.load(BytesIO(content)).module(),)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self._run[0](x)


def _write_torch(model: nn.Module, example: Tensor, path: Path) -> nn.Module:
    # Into memory first: where there is no room, torch's writer of files ends the process.
    content = BytesIO()
    torch.export.save(exported(model, example), content)
    path.write_bytes(content.getbuffer())
    return Program(path)


def _write_onnx(model: nn.Module, example: Tensor, path: Path) -> nn.Module:
    import_optional("onnxscript", "export to ONNX", "pip install onnx onnxscript onnxruntime")
    import_optional("onnxruntime", "checking an ONNX export", "pip install onnxruntime")
    program = torch.onnx.export(
        exported(model, example),
        dynamo=True,
        verbose=False,
        input_names=["clips"],
        output_names=["logits"],
    )
    assert program is not None
    program.save(path)
    return ONNX(path)


def _write_openvino(model: nn.Module, example: Tensor, path: Path) -> nn.Module:
    openvino = import_optional("openvino", "export to OpenVINO", "pip install openvino")
    network = openvino.convert_model(exported(model, example))
    save_graph(network, path)
    return OpenVINO.read(path, example.shape[2:])


# Each writes a file and returns what `read_exported` would run of it.
WRITERS: dict[str, Callable[[nn.Module, Tensor, Path], nn.Module]] = {
    ".pt2": _write_torch,
    ".onnx": _write_onnx,
    ".xml": _write_openvino,
}
