"""An exported network and the .json of its input and output, written and read together."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from octvideo.checkpoint import InputSpec
from octvideo.deploy.engines import TOLERANCE, relative_difference
from octvideo.deploy.export import ONNX, Program, export_model
from octvideo.deploy.openvino import OpenVINO
from octvideo.errors import CheckpointError, ConfigError, OctvideoError, logger
from octvideo.files import write_atomically
from octvideo.models.network import HeadAct, activate

SUFFIXES = (".xml", ".onnx", ".pt2")
Output = Literal["logits", "probabilities"]
_MAX_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The content of the .json. input: (C, T, H, W) of a clip. head_act: the function from logits
    to probabilities."""

    input: tuple[int, ...]
    output: Output
    class_names: tuple[str, ...]
    preprocessing: Mapping[str, Any]
    multi_label: bool
    head_act: HeadAct

    def write(self, path: Path) -> None:
        """Beside the exported file `path`."""
        facts = {
            "format": 1,
            "input": ["batch", *self.input],
            "output": self.output,
            "head_act": self.head_act,
            "multi_label": self.multi_label,
            "class_names": list(self.class_names),
            **self.preprocessing,
        }
        text = json.dumps(facts, indent=1) + "\n"
        write_atomically(str(path.with_suffix(".json")), lambda file: file.write(text.encode()))

    @classmethod
    def read(cls, path: Path) -> "Sidecar":
        """That of the exported file `path`. Raises CheckpointError if it is missing or damaged."""
        facts = _read_facts(path.with_suffix(".json"), path)
        spec = InputSpec.of(facts)
        try:
            _, channels, *size = facts["input"]
            act = "sigmoid" if facts.get("multi_label") else "softmax"
            found = cls(
                (int(channels), *map(int, size)),
                facts.get("output", "logits"),
                tuple(str(name) for name in facts["class_names"]),
                spec.as_dict(),
                bool(facts.get("multi_label")),
                cast(HeadAct, facts.get("head_act") or act),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path.with_suffix('.json')}: does not describe a network ({error!r}); export it"
                " again"
            ) from error
        acts = ("softmax", "sigmoid", "softmax_of_mean", "sigmoid_of_mean")
        complete = len(found.input) == 4 and spec.mean and spec.num_frames and found.class_names
        if not complete or found.output not in ("logits", "probabilities"):
            raise CheckpointError(
                f"{path.with_suffix('.json')}: does not say all of the network's input, output and"
                " classes; export it again"
            )
        if found.head_act not in acts:
            raise CheckpointError(
                f"{path.with_suffix('.json')}: head_act is {found.head_act!r}; there are"
                f" {', '.join(acts)}"
            )
        return found


def _read_facts(sidecar: Path, path: Path) -> dict[str, Any]:
    try:
        if sidecar.stat().st_size > _MAX_BYTES:
            raise CheckpointError(f"{sidecar}: larger than a description of a network can be")
        facts = json.loads(sidecar.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: {sidecar.name} is not beside it; an export writes both, keep them together"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{sidecar}: cannot be read ({error}); export it again") from error
    if not isinstance(facts, dict):
        raise CheckpointError(f"{sidecar}: does not describe a network; export it again")
    return facts


class ExportedNetwork(nn.Module):
    """Scores from another runtime, on the CPU. Any number of threads may call it."""

    def __init__(self, run: nn.Module, path: Path, sidecar: Sidecar) -> None:
        super().__init__()
        self.run, self.path, self.sidecar = run, path, sidecar
        self.in_channels = sidecar.input[0]
        # The state dict is what tells two networks apart where a run of predictions continues.
        digest = sha256(path.read_bytes())
        if path.suffix == ".xml":
            digest.update(path.with_suffix(".bin").read_bytes())
        file_sha256 = torch.tensor(list(digest.digest()), dtype=torch.uint8)
        self.register_buffer("file_sha256", file_sha256)

    def window_scores(self, x: Tensor, act: HeadAct = "softmax") -> Tensor:
        """Probabilities (N, classes) of normalized clips (N, C, T, H, W)."""
        out = self.run(x)
        if out.shape[-1] != len(self.sidecar.class_names):
            raise CheckpointError(
                f"{self.path}: gives {out.shape[-1]} numbers for {len(self.sidecar.class_names)}"
                " classes; it and its .json are of two networks"
            )
        return out if self.sidecar.output == "probabilities" else activate(out[:, None, None], act)

    def forward(self, x: Tensor) -> Tensor:
        raise self._scores_only()

    def features(self, x: Tensor) -> list[Tensor]:
        raise self._scores_only()

    def _scores_only(self) -> ConfigError:
        return ConfigError(
            f"{self.path}: an exported network gives scores only; load the checkpoint that it was"
            " made of"
        )


def read_exported(path: Path, *, trusted: bool = False) -> ExportedNetwork:
    """The network in an .xml, .onnx or .pt2 that was exported, with its sidecar.

    trusted: a .pt2 is read only with it, because torch evaluates expressions in the file and may
    unpickle its objects. Raises CheckpointError for a file that is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file")
    sidecar = Sidecar.read(path)
    if path.suffix == ".pt2" and not trusted:
        raise CheckpointError(
            f"{path}: reading a .pt2 can run code that stands in it; octvideo.load(path,"
            " trusted=True) reads one that you have made; .onnx and .xml hold no code"
        )
    try:
        if path.suffix == ".xml":
            run: nn.Module = OpenVINO.read(path, sidecar.input[-2:])
        else:
            run = ONNX(path) if path.suffix == ".onnx" else Program(path)
        return ExportedNetwork(run, path, sidecar)
    except OctvideoError:
        raise
    except Exception as error:  # Each runtime has its own exceptions.
        cause = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise CheckpointError(f"{path}: cannot be read ({cause}); export it again") from error


def write_exported(
    model: nn.Module, score: nn.Module, sidecar: Sidecar, path: Path, *, lowered: bool = False
) -> float:
    """Write `model` and its sidecar; returns the relative difference (see `export_model`, also for
    `lowered`).

    score: an `OpenVINO` of the network's probabilities is written to an .xml in that form, in place
    of the model.
    """
    if isinstance(model, ExportedNetwork):
        raise ConfigError(
            f"{path}: the network comes from {model.path}; copy that file and its .json, or load"
            " the checkpoint"
        )
    if isinstance(score, OpenVINO) and path.suffix == ".xml" and not lowered:
        path.parent.mkdir(parents=True, exist_ok=True)
        score.save(path)
        replace(sidecar, output="probabilities").write(path)
        return 0.0
    example = torch.randn(2, *sidecar.input)
    difference = export_model(model, example, path, lowered=lowered)
    _warn_of_positions(model, example, sidecar, path)
    sidecar.write(path)
    return difference


def _warn_of_positions(model: Any, example: Tensor, sidecar: Sidecar, path: Path) -> None:
    """Warn that a crop larger than the training's has several window positions, whose features are
    averaged before the logits."""
    with torch.no_grad():
        x = example.to(next(model.parameters()).device)
        expected = model.window_scores(x, sidecar.head_act)
        found = activate(model(x)[:, None, None], sidecar.head_act)
    difference = relative_difference(found, expected)
    if difference > TOLERANCE:
        logger.warning(
            "%s: probabilities made of its logits differ by %.1e from the test's, which averages"
            " over positions of a larger crop; an .xml of an optimized recognizer holds those",
            path,
            difference,
        )
