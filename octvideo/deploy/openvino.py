"""A network in OpenVINO's CPU runtime, and the time of each of its layers there."""

import logging
import threading
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from octvideo.copies import copied
from octvideo.deploy.core_operators import core_operators
from octvideo.deploy.layer_times import layer_names
from octvideo.errors import ConfigError, first_line, import_optional
from octvideo.layers import stem_by_space_to_depth

_core: Any = None
_one_at_a_time = threading.Lock()
PRECISION = ["octvideo", "precision"]
"""Where the graph's own information has it, which is written to the .xml."""


def core() -> Any:
    """OpenVINO's runtime of this process, which is never freed.

    On CPUs with AMX a runtime gives threads another stack to handle signals on. When one of several
    is freed, the stack of a thread is no longer there, and the next signal ends the process.
    """
    global _core
    openvino = import_optional("openvino", "engine openvino", "pip install openvino")
    with _one_at_a_time:
        if _core is None:
            _core = openvino.Core()
    return _core


def contents_of(path: Path) -> list[bytes]:
    """Of an exported network: its file's, and of an .xml its .bin's too."""
    both = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    return [file.read_bytes() for file in both]


class OpenVINO(nn.Module):
    """A converted network on CPUs, from and to torch tensors. The first input of another batch size
    compiles the network again.

    size: (T, H, W) of every clip or (H, W) of every image, which the graph's own numbers were
    computed for; a pickle of an earlier version tells (H, W) alone. precision: written into the
    graph; by default the graph's own. Any number of threads may call it at once: each call has its
    own inference request. They share as many threads of the runtime as torch has where it is made.
    A pickle contains the graph, which is compiled again when it is loaded.
    """

    def __init__(self, network: Any, size: tuple[int, ...], precision: str = "") -> None:
        super().__init__()
        self.network, self.size = network, tuple(size)
        if precision:
            network.set_rt_info(precision, PRECISION)
        elif network.has_rt_info(PRECISION):
            precision = network.get_rt_info(PRECISION).value
        self.precision = precision if precision in ("bf16", "int8") else "fp32"
        self._start()

    def _start(self) -> None:
        self._threads = torch.get_num_threads()
        self._compiling = threading.Lock()
        self._compiled: dict[tuple[int, ...], Any] = {}
        self._idle: defaultdict[tuple[int, ...], deque[Any]] = defaultdict(deque)

    def forward(self, x: Tensor) -> Tensor:
        shape = tuple(x.shape)
        clips = x.detach().contiguous().numpy()
        request = self._take_request(shape)
        # The next call reuses the request's memory, so the result is copied before the request is
        # idle again.
        scores = torch.from_numpy(request.infer([clips])[0].copy())
        self._idle[shape].append(request)
        return scores

    def _take_request(self, shape: tuple[int, ...]) -> Any:
        """An inference request that no other thread uses."""
        with self._compiling:
            if self._idle[shape]:
                return self._idle[shape].pop()
            if shape not in self._compiled:
                size = shape[-len(self.size) :]
                if size != self.size:
                    got, wanted = (" x ".join(map(str, s)) for s in (size, self.size))
                    raise ConfigError(
                        f"the input is {got}, the network was optimized for {wanted}; optimize it"
                        " for that size"
                    )
                self._compiled[shape] = _compiled(
                    self.network, shape, precision=self.precision, threads=self._threads
                )
            return self._compiled[shape].create_infer_request()

    @classmethod
    def read(cls, path: Path, size: tuple[int, ...]) -> "OpenVINO":
        """Read a network from an .xml and the .bin beside it."""
        return cls.of(contents_of(path), size)

    @classmethod
    def of(cls, contents: Sequence[bytes], size: tuple[int, ...]) -> "OpenVINO":
        """Of the contents of an .xml and its .bin.

        By their path OpenVINO would map the files, and what replaces them there would change a
        network that is running.
        """
        return cls(core().read_model(*contents), size)

    def save(self, path: Path) -> None:
        """Write the network as an .xml and a .bin beside it. Raises the OSError of `save_graph`."""
        save_graph(self.network, path)

    def __getstate__(self) -> dict[str, Any]:
        with TemporaryDirectory() as folder:
            path = Path(folder, "network.xml")
            self.save(path)
            return {"files": contents_of(path), "size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        network = core().read_model(*state["files"])
        self.__init__(network, state["size"])  # type: ignore[misc]


class OpenVINOTimes:
    """Layer times as `EagerTimes` has them, without merging octave convolutions first."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        program = _in_core_operations(exported(model, example))
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


def exported(model: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """The graph for any batch; other sizes are the example's (pooling an odd map rounds up)."""
    # An example of one clip would fix the batch at one.
    pair, batch = torch.cat([example[:1]] * 2), torch.export.Dim("batch", min=1)
    with torch.no_grad(), _quiet_exporter():
        return torch.export.export(model.eval(), (pair,), dynamic_shapes=({0: batch},))


def _in_core_operations(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Decompose into core operations, and compute equal operations on equal inputs once, such as
    two layers that pool one map. The nodes that remain keep their names."""
    from torch.fx.passes.dialect.common.cse_pass import CSEPass

    operations = torch.export.default_decompositions()
    for operation in [op for op in operations if "upsample_nearest" in str(op)]:
        # Decomposed into index arithmetic, it would become a gather, which is slow.
        del operations[operation]
    with torch.no_grad(), _quiet_exporter():
        program = program.run_decompositions(operations)
    CSEPass()(program.graph_module)
    return program


def _converted(program: torch.export.ExportedProgram) -> Any:
    openvino = import_optional("openvino", "engine openvino", "pip install openvino")
    from openvino.frontend import OpConversionFailure
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    with _quiet_exporter(), _log_as_it_is():
        if (module := core_operators(program)) is not None:
            # It raises for an operator without a rule, which a second trace decomposes.
            with suppress(OpConversionFailure):
                return openvino.convert_model(TorchFXPythonDecoder(module, dynamic_shapes=True))
        return openvino.convert_model(program)


@contextmanager
def _log_as_it_is() -> Iterator[None]:
    """A context that restores the root logger. A converter that fails leaves it at level ERROR,
    which would hide warnings."""
    root = logging.getLogger()
    level, filters, handlers = root.level, list(root.filters), list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers


def _quiet_exporter() -> AbstractContextManager[None]:
    """A context that silences the warnings of torch's exporter about itself."""
    return warnings.catch_warnings(action="ignore", category=FutureWarning)


def save_graph(network: Any, path: Path) -> None:
    """Write a graph of OpenVINO. Raises OSError where there is no room: OpenVINO says it with a
    RuntimeError of its streams."""
    import openvino

    try:
        openvino.save_model(network, path, compress_to_fp16=False)
    except RuntimeError as error:
        raise OSError(f"OpenVINO reports {first_line(error)}") from error


def convert(model: nn.Module, example: Tensor) -> OpenVINO:
    """`model` in evaluation mode, for clips of the example's frames, height and width."""
    return OpenVINO(_converted(exported(model, example)), tuple(example.shape[2:]))


def convert_low_precision(
    model: nn.Module, example: Tensor, precision: str, change: Callable[[Any], Any] = lambda g: g
) -> OpenVINO:
    """`convert` for inference in bf16 or int8. change: applied to the graph before it is compiled,
    for example a quantization.

    The stem is computed by space-to-depth, and layers that pool one map share the pool: both make
    inference faster in these precisions.
    """
    model = stem_by_space_to_depth(copied(model), True)
    network = _converted(_in_core_operations(exported(model, example)))
    network.reshape([-1, *example.shape[1:]])  # `change` may need the static sizes of feature maps.
    return OpenVINO(change(network), tuple(example.shape[2:]), precision)


def compile_layers(
    layers: Sequence[nn.Module], inputs: Sequence[tuple[Tensor, ...]]
) -> list[Callable[[], object]]:
    """Compile each layer for repeated inference on its inputs.

    The layers are exported and converted as one network, which is then cut apart: most of the time
    of a conversion does not depend on the size of the network.
    """
    openvino = import_optional("openvino", "engine openvino", "pip install openvino")
    joined = _SideBySide(layers, [len(x) for x in inputs]).eval()
    flat = [x.contiguous() for of_layer in inputs for x in of_layer]
    with torch.no_grad(), _quiet_exporter():
        ends = [len(outputs) for outputs in joined(*flat)]
        network = _converted(torch.export.export(joined, tuple(flat)))
    network.reshape({i: list(x.shape) for i, x in enumerate(flat)})
    arrays = iter([x.numpy() for x in flat])
    parameters, results = iter(network.get_parameters()), iter(network.get_results())
    calls: list[Callable[[], object]] = []
    for begins, end in zip(joined.counts, ends, strict=True):
        part = openvino.Model(list(islice(results, end)), list(islice(parameters, begins)), "layer")
        request = _compiled(part).create_infer_request()
        calls.append(partial(request.infer, list(islice(arrays, begins))))
    return calls


class _SideBySide(nn.Module):
    """Independent layers as one network; counts: the number of inputs of each."""

    def __init__(self, layers: Sequence[nn.Module], counts: list[int]) -> None:
        super().__init__()
        self.layers, self.counts = nn.ModuleList(layers), counts

    def forward(self, *inputs: Tensor) -> list[tuple[Tensor, ...]]:
        rest = iter(inputs)
        return [
            layer(*islice(rest, count))
            for layer, count in zip(self.layers, self.counts, strict=True)
        ]


def _compiled(
    network: Any,
    shape: tuple[int, ...] = (),
    *,
    timed: bool = False,
    precision: str = "fp32",
    threads: int = 0,
) -> Any:
    """Compile `network`. shape: of the input, if the network leaves it dynamic: with a dynamic
    shape the runtime would copy between its memory layouts. threads: by default torch's here."""
    if shape:
        network = network.clone()
        network.reshape(list(shape))
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": timed}
    if precision == "bf16":
        hints["INFERENCE_PRECISION_HINT"] = "bf16"
    hints["INFERENCE_NUM_THREADS"] = threads or torch.get_num_threads()
    return core().compile_model(network, "CPU", hints)


def _owners(program: torch.export.ExportedProgram, layers: list[str]) -> dict[str, str]:
    """Name of a graph's node -> the layer to which its time is added."""
    owners, owner = {}, ""
    for node in program.graph.nodes:
        paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
        owner = next((path for path in paths if path in layers), owner)
        owners[node.name] = owner
    return owners
