"""Test a network on a list of videos, from Python."""

from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from octvideo.assembly import final_test, ranks, settings_of
from octvideo.checkpoint import Checkpoint, InputSpec
from octvideo.errors import ConfigError
from octvideo.recognizer import Recognizer
from octvideo.runs.recipe import parse_views
from octvideo.weights.pretrained import read_weights


def evaluate(
    model: str | Path | Recognizer,
    list: str | Path,
    *,
    views: str = "10x3",
    out: str | Path = "",
    diagnose: bool = False,
) -> dict[str, Any]:
    """Score every video of a list in all its views; returns the content of results.json: top1_acc,
    top1_interval, classes, ...

        octvideo.evaluate("runs/mine/checkpoints/best.pyth", "my_videos/test.csv")["top1_acc"]
        octvideo.evaluate("i3d_r50_k400", "kinetics/val.csv", views="1x1", out="runs/i3d_k400")

    model: a checkpoint, the name of a public network, or a recognizer from `octvideo.load`. list:
    lines of `path label`.
    views: clips x crops. out: a folder for results.json, predictions.csv, scores.npz and
    report.html.
    diagnose: also with frames shuffled, reversed and repeated ("frame_order").

    Raises OctvideoError, one line, for a checkpoint or a list that cannot be used.
    """
    clips, crops = parse_views(views)
    checkpoint = _checkpoint_of(model)
    with ExitStack() as stack:
        folder = str(out) or stack.enter_context(TemporaryDirectory())
        settings = [
            f"TEST.NUM_ENSEMBLE_VIEWS={clips}",
            f"TEST.NUM_SPATIAL_CROPS={crops}",
            f"TEST.DIAGNOSE={diagnose}",
            f"OUTPUT_DIR={folder}",
        ]
        cfg = settings_of(checkpoint, settings)
        with ranks(cfg) as procs:
            return final_test(cfg, procs, checkpoint, str(list))


def _checkpoint_of(model: str | Path | Recognizer) -> Checkpoint:
    if isinstance(model, str | Path):
        return read_weights(str(model))
    if not isinstance(model, Recognizer):
        raise ConfigError(
            f"evaluate got a {type(model).__name__}; give a checkpoint, the name of a public"
            " network, or what octvideo.load returned"
        )
    return Checkpoint(
        state=model.model.state_dict(),
        network=model.model.config,
        class_names=tuple(model.class_names),
        input=InputSpec.of(model.preprocessing),
        multi_label=model.multi_label,
        head_act=model.head_act,
    )
