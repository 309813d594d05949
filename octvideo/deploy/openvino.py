"""A network in OpenVINO's CPU runtime, and how long each of its layers takes there."""

import warnings
from collections import Counter
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.deploy.layer_times import layer_names
from octvideo.errors import ConfigError, import_optional


class OpenVINO(nn.Module):
    """`model` on CPUs, from and to torch tensors; another batch or number of frames compiles once more."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.network = _converted(_exported(model, example))
        self.size = tuple(example.shape[-2:])
        self.requests: dict[tuple[int, ...], Any] = {}
        self(example)

    def forward(self, x: Tensor) -> Tensor:
        shape = tuple(x.shape)
        if shape not in self.requests:
            if shape[-2:] != self.size:
                got, wanted = (" x ".join(map(str, size)) for size in (shape[-2:], self.size))
                raise ConfigError(
                    f"the input is {got}, the network was optimised for {wanted}; optimise it for that size"
                )
            self.requests[shape] = _request(self.network, shape)
        return torch.from_numpy(
            self.requests[shape].infer([x.detach().contiguous().numpy()])[0].copy()
        )


class OpenVINOTimes:
    """`LayerTimes` of `model` as it is, unmerged layers staying so."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        program = _exported(model, example)
        self.owners = _owners(program, layer_names(model))
        self.request = _request(_converted(program), tuple(example.shape), timed=True)
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


def _request(network: Any, shape: tuple[int, ...], *, timed: bool = False) -> Any:
    """To infer with. The shape is fixed: with sizes left open the runtime copies between its memory layouts."""
    import openvino

    network = network.clone()
    network.reshape(list(shape))
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": timed}
    hints["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
    return openvino.compile_model(network, "CPU", hints).create_infer_request()


def _owners(program: torch.export.ExportedProgram, layers: list[str]) -> dict[str, str]:
    """Name of a graph's node -> the layer that it counts with."""
    owners, owner = {}, ""
    for node in program.graph.nodes:
        paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
        owner = next((path for path in paths if path in layers), owner)
        owners[node.name] = owner
    return owners
