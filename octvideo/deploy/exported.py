"""An exported network and the .json of its input and output, written and read together."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from octvideo.checkpoint import InputSpec
from octvideo.data.sampling import RULES
from octvideo.deploy.engines import TOLERANCE, WindowScores, relative_difference
from octvideo.deploy.export import (
    ONNX,
    Program,
    require_format,
    sha256_of,
    write_network,
    written_difference,
)
from octvideo.deploy.openvino import OpenVINO, contents_of
from octvideo.errors import CheckpointError, ConfigError, OctvideoError, first_line, logger
from octvideo.files import appear_together
from octvideo.models.network import HeadAct, activate

SUFFIXES = (".xml", ".onnx", ".pt2")
Output = Literal["logits", "probabilities"]
_MAX_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The content of the .json. input: (C, T, H, W) of a clip. head_act: the function from logits
    to probabilities. sha256: suffix -> digest of each exported file that it describes; empty in
    those of earlier versions."""

    input: tuple[int, ...]
    output: Output
    class_names: tuple[str, ...]
    preprocessing: Mapping[str, Any]
    multi_label: bool
    head_act: HeadAct
    sha256: Mapping[str, str] = field(default_factory=dict)

    def write(self, unfinished: Path, path: Path) -> None:
        """Beside the exported file `unfinished`, which is to be `path`.

        A model.json describes model.onnx and model.xml if the same is true of both.
        """
        facts: dict[str, Any] = {
            "format": 1,
            "input": ["batch", *self.input],
            "output": self.output,
            "head_act": self.head_act,
            "multi_label": self.multi_label,
            "class_names": list(self.class_names),
            **self.preprocessing,
        }
        sha256 = sha256_of(contents_of(unfinished))
        facts["sha256"] = _also_described(path, facts) | {path.suffix: sha256}
        text = json.dumps(facts, indent=1) + "\n"
        unfinished.with_suffix(".json").write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Sidecar":
        """That of the exported file `path`. Raises CheckpointError if it is missing or damaged."""
        facts = _read_facts(path.with_suffix(".json"), path)
        try:
            spec = InputSpec.of(facts)
            _, channels, *size = facts["input"]
            act = "sigmoid" if facts.get("multi_label") else "softmax"
            found = cls(
                (int(channels), *map(int, size)),
                facts.get("output", "logits"),
                tuple(str(name) for name in facts["class_names"]),
                spec.as_dict(),
                bool(facts.get("multi_label")),
                cast(HeadAct, facts.get("head_act") or act),
                dict(facts.get("sha256") or {}),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path.with_suffix('.json')}: does not describe a network ({error!r}); export it"
                " again"
            ) from error
        if missing := spec.missing():
            raise CheckpointError(
                f"{path.with_suffix('.json')}: does not say {', '.join(missing)}; export it again"
            )
        acts = ("softmax", "sigmoid", "softmax_of_mean", "sigmoid_of_mean")
        complete = len(found.input) == 4 and found.class_names
        if not complete or found.output not in ("logits", "probabilities"):
            raise CheckpointError(
                f"{path.with_suffix('.json')}: does not say all of the network's input, output and"
                " classes; export it again"
            )
        choices = {"head_act": (found.head_act, acts), "sampling_rule": (spec.sampling_rule, RULES)}
        for name, (value, known) in choices.items():
            if value not in known:
                raise CheckpointError(
                    f"{path.with_suffix('.json')}: {name} is {value!r}; there are"
                    f" {', '.join(known)}"
                )
        return found


def _also_described(path: Path, facts: Mapping[str, Any]) -> dict[str, str]:
    """The digests in the .json that is there, if it says `facts` too."""
    try:
        before = _read_facts(path.with_suffix(".json"), path)
    except CheckpointError:
        return {}
    digests = before.pop("sha256", None)
    return digests if before == facts and isinstance(digests, dict) else {}


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

    def __init__(self, run: nn.Module, path: Path, sidecar: Sidecar, sha256: str) -> None:
        super().__init__()
        self.run, self.path, self.sidecar, self.sha256 = run, path, sidecar, sha256
        self.in_channels = sidecar.input[0]
        # The state dict is what tells two networks apart where a run of predictions continues.
        file_sha256 = torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8)
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
    unpickle its objects. Raises CheckpointError for a file that is missing or damaged, and for one
    that is not of the same export as its sidecar.
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
        # Read once: another file may replace it meanwhile.
        contents = contents_of(path)
        sha256 = sha256_of(contents)
        if sidecar.sha256 and sidecar.sha256.get(path.suffix) != sha256:
            raise CheckpointError(
                f"{path}: is not what {path.stem}.json describes (sha256 {sha256[:12]}, not"
                f" {str(sidecar.sha256.get(path.suffix))[:12]}); export it again, and keep its"
                " files together"
            )
        if path.suffix == ".xml":
            run: nn.Module = OpenVINO.of(contents, sidecar.input[1:])
        else:
            run = (ONNX if path.suffix == ".onnx" else Program)(path, *contents)
        return ExportedNetwork(run, path, sidecar, sha256)
    except OctvideoError:
        raise
    except Exception as error:  # Each runtime has its own exceptions.
        raise CheckpointError(
            f"{path}: cannot be read ({first_line(error)}); export it again"
        ) from error


def write_exported(
    model: nn.Module, score: nn.Module, sidecar: Sidecar, path: Path, *, lowered: bool = False
) -> float:
    """Write `model` and its sidecar, which appear together; returns the relative difference (see
    `export_model`, also for `lowered`).

    score: an `OpenVINO` of the network's probabilities is written to an .xml in that form, in place
    of the model; the difference is then theirs, which in int8 may be a tenth.
    """
    if isinstance(model, ExportedNetwork):
        raise ConfigError(
            f"{path}: the network comes from {model.path}; copy that file and its .json, or load"
            " the checkpoint"
        )
    require_format(path, lowered=lowered)
    example = torch.randn(2, *sidecar.input)
    with appear_together(path) as unfinished:
        if isinstance(score, OpenVINO) and path.suffix == ".xml":
            score.save(unfinished)
            replace(sidecar, output="probabilities").write(unfinished, path)
            run = OpenVINO.read(unfinished, sidecar.input[1:])
            return written_difference(run, WindowScores(model, sidecar.head_act), example)
        difference = write_network(model, example, unfinished, lowered=lowered)
        _warn_of_positions(model, example, sidecar, path)
        sidecar.write(unfinished, path)
        return difference


def _warn_of_positions(model: Any, example: Tensor, sidecar: Sidecar, path: Path) -> None:
    """Warn that a crop larger than the training's has several window positions, whose features are
    averaged before the logits."""
    with torch.no_grad():
        x = example.to(next(model.parameters()).device)
        expected = model.window_scores(x, sidecar.head_act)
        found = activate(model(x)[:, None, None], sidecar.head_act)
    difference = relative_difference(found, expected)
    if not difference <= TOLERANCE:
        logger.warning(
            "%s: probabilities made of its logits differ by %.1e from the test's, which averages"
            " over positions of a larger crop; an .xml of an optimized recognizer holds those",
            path,
            difference,
        )
