"""A network in OpenVINO's CPU runtime, and how long each of its layers takes there."""

import threading
import warnings
from collections import Counter, defaultdict, deque
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.deploy.layer_times import layer_names
from octvideo.errors import ConfigError, import_optional


class OpenVINO(nn.Module):
    """A converted network on CPUs, from and to torch tensors; another batch or number of frames compiles once more.

    size: (H, W) of every input. Any number of threads may call it: each call has an inference request of its own. A
    pickle of it holds the graph and compiles again where it is loaded.
    """

    def __init__(self, network: Any, size: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.size = network, tuple(size)
        self._start()

    def _start(self) -> None:
        self._compiling = threading.Lock()
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._idle: defaultdict[tuple[int, ...], deque[Any]] = defaultdict(deque)

    def forward(self, x: Tensor) -> Tensor:
        shape = tuple(x.shape)
        clips = x.detach().contiguous().numpy()
        request = self._take_request(shape)
        # The request's memory is the next call's too, so the result is copied before the request is idle again.
        scores = torch.from_numpy(request.infer([clips])[0].copy())
        self._idle[shape].append(request)
        return scores

    def _take_request(self, shape: tuple[int, ...]) -> Any:
        """One that no other thread uses."""
        with self._compiling:
            if self._idle[shape]:
                return self._idle[shape].pop()
            if shape not in self._compiled:
                self._check(shape)
                self._compiled[shape] = _compiled(self.network, shape)
            return self._compiled[shape].create_infer_request()

    def _check(self, shape: tuple[int, ...]) -> None:
        if shape[-2:] != self.size:
            got, wanted = (" x ".join(map(str, size)) for size in (shape[-2:], self.size))
            raise ConfigError(
                f"the input is {got}, the network was optimised for {wanted}; optimise it for that size"
            )

    def __getstate__(self) -> dict[str, Any]:
        import openvino

        with TemporaryDirectory() as folder:
            openvino.save_model(self.network, f"{folder}/network.xml", compress_to_fp16=False)
            files = [Path(folder, f"network.{suffix}").read_bytes() for suffix in ("xml", "bin")]
        return {"files": files, "size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        openvino = import_optional("openvino", "engine openvino", "pip install openvino")
        network = openvino.Core().read_model(*state["files"])
        self.__init__(network, state["size"])  # type: ignore[misc]


class OpenVINOTimes:
    """`LayerTimes` of `model` as it is, unmerged layers staying so."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        program = _exported(model, example)
        self.owners = _owners(program, layer_names(model))
        compiled = _compiled(_converted(program), tuple(example.shape), timed=True)
        self.request = compiled.create_infer_request()
        self.input = example.numpy()
        self.seconds = dict.fromkeys(self.owners.values(), float("inf"))
        self.request.infer([self.input])

    def __call__(self) -> None:
        self.request.infer([self.input])
        seconds: Counter[str] = Counter()
        for node in self.request.profiling_info:
            seconds[self.owners.get(node.node_name.split("/")[0], "")] += (
                node.real_time.total_seconds()
            )
        self.seconds = {name: min(fastest, seconds[name]) for name, fastest in self.seconds.items()}


def _exported(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """The graph in aten operations; equal ones on equal inputs are one, as two layers that pool the same map."""
    from torch.fx.passes.dialect.common.cse_pass import CSEPass

    operations = torch.export.default_decompositions()
    for operation in [op for op in operations if "upsample_nearest" in str(op)]:
        # As index arithmetic it would become a gather, which is slow.
        del operations[operation]
    # An example of one clip would fix the batch at one.
    pair, batch = torch.cat([example[:1]] * 2), torch.export.Dim("batch", min=1, max=1024)
    with torch.no_grad(), _exporter_alone():
        program = torch.export.export(model.eval(), (pair,), dynamic_shapes=({0: batch},))
        program = program.run_decompositions(operations)
    CSEPass()(program.graph_module)
    return program


def _converted(program: torch.export.ExportedProgram) -> Any:
    openvino = import_optional("openvino", "engine openvino", "pip install openvino")
    with _exporter_alone():
        return openvino.convert_model(program)


def _exporter_alone() -> AbstractContextManager[None]:
    """Without what torch's exporter has to say about itself."""
    return warnings.catch_warnings(action="ignore", category=FutureWarning)


def convert(model: nn.Module, example: Tensor) -> OpenVINO:
    """`model` in evaluation mode, for clips of the example's height and width."""
    return OpenVINO(_converted(_exported(model, example)), tuple(example.shape[-2:]))


def _compiled(network: Any, shape: tuple[int, ...], *, timed: bool = False) -> Any:
    """For one shape: with sizes left open the runtime copies between its memory layouts."""
    import openvino

    network = network.clone()
    network.reshape(list(shape))
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": timed}
    hints["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
    return openvino.compile_model(network, "CPU", hints)


def _owners(program: torch.export.ExportedProgram, layers: list[str]) -> dict[str, str]:
    """Name of a graph's node -> the layer that it counts with."""
    owners, owner = {}, ""
    for node in program.graph.nodes:
        paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
        owner = next((path for path in paths if path in layers), owner)
        owners[node.name] = owner
    return owners
