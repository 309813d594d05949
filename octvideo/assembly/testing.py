"""The test over all views with the settings of a config, or with those in a checkpoint."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from octvideo.assembly.data import training_list_beside
from octvideo.assembly.identity import (
    check_tested,
    data_of,
    digest,
    facts,
    recipe_of,
    warn_of_another_list,
)
from octvideo.assembly.model import build_model, network_settings
from octvideo.assembly.start import (
    calibration_of,
    running,
    scorer,
    tested_head_act,
    tested_precision,
)
from octvideo.assembly.tasks import FinalTest, require_data_folder, task_of, with_counted_classes
from octvideo.assembly.trained_with import IN_DATA, check_said_input, tell_other_clips
from octvideo.checkpoint import Checkpoint
from octvideo.complexity import count, without
from octvideo.config import config_from_text, setting_pairs
from octvideo.data.clips.views import VideoViews
from octvideo.download import hash_of
from octvideo.engine.checkpoint_files import find_latest
from octvideo.engine.distributed import Processes
from octvideo.engine.evaluation.evaluate import default_view_chunk, evaluate
from octvideo.engine.evaluation.frame_order import (
    named_by_order,
    order_lines,
    summarize_orders,
)
from octvideo.engine.evaluation.journal import Journal, fingerprint, weights_digest
from octvideo.engine.evaluation.results import (
    Evaluation,
    final_line,
    headline,
    summarize,
    write_results,
)
from octvideo.errors import CheckpointError, logger
from octvideo.files import is_local
from octvideo.models.network import HeadAct, alpha_of, config_of
from octvideo.models.registry import find_name, on_meta, resolved
from octvideo.report.environment import versions
from octvideo.report.html import write_report
from octvideo.weights import load_weights
from octvideo.weights.load import network_of
from octvideo.weights.pretrained import PUBLISHED, read_and_hash

# Settings from which the short side of a test follows anew.
SIZES = ("DATA.TEST_CROP_SIZE", "DATA.TRAIN_JITTER_SCALES")


def final_test(
    cfg: Any, procs: Processes, checkpoint: str | Checkpoint = "", list_path: str = ""
) -> dict[str, Any]:
    """Score every video of a list in all its views; results go to OUTPUT_DIR. Resumes an
    interrupted test.

    checkpoint: its content, or its path; "" for TEST.CHECKPOINT_FILE_PATH, else the newest in
    OUTPUT_DIR.
    list_path: by default test.csv (or val.csv) of the data.
    """
    if not list_path:
        require_data_folder(cfg)
    with running(cfg, procs):
        if not isinstance(checkpoint, Checkpoint):
            path = checkpoint or cfg.TEST.CHECKPOINT_FILE_PATH
            checkpoint = read_and_hash(path or _newest_checkpoint(cfg.OUTPUT_DIR, procs))
        elif checkpoint.path and not checkpoint.sha256:
            checkpoint = replace(checkpoint, sha256=hash_of(checkpoint.path))
        cfg = with_counted_classes(cfg, checkpoint.network.get("num_classes"))
        model, names = _trained_model(cfg, checkpoint)
        return _Test(cfg, procs, checkpoint, model.to(procs.device).eval(), names).run(list_path)


@dataclass(frozen=True)
class _Test:
    """The test of one network, whose class names are `names`."""

    cfg: Any
    procs: Processes
    checkpoint: Checkpoint
    model: nn.Module
    names: list[str]

    def run(self, list_path: str) -> dict[str, Any]:
        cfg, summaries = self.cfg, dict[str, dict[str, Any]]()
        journals, calibration = list[Journal](), calibration_of(cfg)
        for test in task_of(cfg).final_tests(self.names, list_path):
            if self.procs.is_main and (train := training_list_beside(cfg, test.source)):
                warn_of_another_list(self.checkpoint, train, test.source)
            protocol = self._protocol(test)
            journal = self._journal(test, protocol, calibration)
            journals += [journal] if journal else []
            evaluation, summary = self._evaluate(test, protocol, journal, calibration)
            if not summaries:
                first = test, evaluation, summary
            summaries[test.title] = summary
        test, evaluation, summary = first
        if test.title:
            summary["crop_sizes"] = {
                title: {"top1_acc": found["top1_acc"], "top5_acc": found["top5_acc"]}
                for title, found in summaries.items()
            }
        summary["data"] = data_of(test.videos)
        summary["made_with"] = versions()
        if cfg.TEST.DIAGNOSE and summary["task"] == "single_label":
            summary["frame_order"] = self._frame_order(test, protocol["head_act"])
        if self.procs.is_main:
            write_results(cfg.OUTPUT_DIR, evaluation, summary)
            self._report(test, summary)
            for journal in journals:
                journal.remove()
        return summary

    def _protocol(self, test: FinalTest) -> dict[str, Any]:
        """Everything that decides a score, as results.json shows it. Crop and short side are those
        of the test's videos, which may differ from the checkpoint's."""
        cfg, spec = self.cfg, test.videos.spec
        # fp32 is not named, as in results from before there was a choice.
        found = tested_precision(cfg, self.procs.device)
        precision = {} if found == "fp32" else {"precision": found}
        return task_of(cfg).input_spec().as_dict() | {
            "crop_size": spec.crop_size,
            "short_side": spec.short_side,
            "checkpoint": self.checkpoint.path,
            "checkpoint_sha256": self.checkpoint.sha256,
            "list": test.source,
            "views": f"{spec.num_clips}x{spec.num_crops}",
            "ensemble": cfg.DATA.ENSEMBLE_METHOD,
            "view_chunk": cfg.TEST.VIEW_CHUNK or default_view_chunk(spec),
            "optimize": cfg.TEST.OPTIMIZE,
            "head_act": tested_head_act(cfg, self.checkpoint),
            **precision,
        }

    def _journal(
        self, test: FinalTest, protocol: dict[str, Any], calibration: Tensor | None
    ) -> Journal | None:
        """The journal of a test, one for all ranks. None if OUTPUT_DIR is no local folder."""
        cfg, model, procs = self.cfg, self.model, self.procs
        paths, labels = test.videos.paths, test.videos.labels
        weights = weights_digest(model.state_dict())
        if calibration is not None:  # the lists that it is of may change between two commands
            protocol = protocol | {"calibration": weights_digest({"clips": calibration})}
        if procs.world_size > 1:
            known = {"paths": paths, "labels": labels, "classes": self.names}
            digests = {name: digest(values) for name, values in known.items()}
            procs.agree(facts(cfg) | protocol | digests | {"weights": weights})
        if not is_local(cfg.OUTPUT_DIR):
            logger.info("%s is no local folder: a test that stops starts anew", cfg.OUTPUT_DIR)
            return None
        settings = {"network": model.config, "multi_label": cfg.DATA.MULTI_LABEL, "paths": paths}
        key = fingerprint(**protocol, **settings, title=test.title, weights=weights)
        return Journal(Path(cfg.OUTPUT_DIR), key, procs.rank)

    def _evaluate(
        self,
        test: FinalTest,
        protocol: dict[str, Any],
        journal: Journal | None,
        calibration: Tensor | None,
    ) -> tuple[Evaluation, dict[str, Any]]:
        """One evaluation and its summary. The journal lets it resume after an interruption."""
        cfg, task, chunk = self.cfg, task_of(self.cfg), protocol["view_chunk"]
        shape = task.input_shape(test.videos.spec.crop_size)
        example = (chunk, *shape) if cfg.TEST.OPTIMIZE else ()
        evaluation = evaluate(
            scorer(cfg, self.model, protocol["head_act"], example, calibration),
            test.videos,
            num_classes=cfg.MODEL.NUM_CLASSES,
            prepare=task.preparation(),
            view_chunk=chunk,
            batch_size=task.batch_size,
            ensemble=cfg.DATA.ENSEMBLE_METHOD,
            processes=self.procs,
            journal=journal,
            progress=log_tenths("test"),
        )
        cost = count(self.model, shape)
        options: Any = self.model.config
        network = {
            "name": options["name"],
            "alpha": alpha_of(options),
            "parameters": cost.parameters,
            "gflops_per_view": round(cost.macs / 1e9, 3),
        }
        if cost.uncounted:
            network["uncounted"] = [*cost.uncounted]
        summary = summarize(evaluation, self.names, protocol | {"network": network})
        if self.procs.is_main:
            if left_out := without(cost.uncounted):
                logger.warning("GFLOPs per view are %.3f%s", cost.macs / 1e9, left_out)
            title = f"center crops of {test.title}: " if test.title else ""
            logger.info("%s%s", title, headline(summary))
        return evaluation, summary

    def _frame_order(self, test: FinalTest, act: HeadAct) -> dict[str, Any]:
        assert isinstance(test.videos, VideoViews)
        one_view = replace(test.videos.spec, num_clips=1, num_crops=1, center=True)
        right = named_by_order(
            scorer(self.cfg, self.model, act),
            test.videos.seen_as(one_view),
            prepare=task_of(self.cfg).preparation(),
            processes=self.procs,
        )
        found = summarize_orders(right)
        for line in order_lines(found) if self.procs.is_main else ():
            logger.info("%s", line)
        return found

    def _report(self, test: FinalTest, summary: dict[str, Any]) -> None:
        folder, procs = self.cfg.OUTPUT_DIR, self.procs
        environment = {
            "torch": torch.__version__,
            "device": str(procs.device),
            "processes": procs.world_size,
        }
        write_report(
            folder,
            film=test.videos.film,
            config=recipe_of(self.checkpoint, self.cfg),
            environment=environment,
            title=folder,
            training=Path(folder).resolve() in Path(self.checkpoint.path).resolve().parents,
        )
        logger.info(
            "results: %s, results.json, predictions.csv, scores.npz, report.html to look at", folder
        )
        logger.info(json.dumps(final_line(summary)))


def _newest_checkpoint(output_dir: str, procs: Processes) -> str:
    """Rank 0's answer, which waits until it has written what it trained."""
    path = procs.from_main(find_latest(f"{output_dir}/checkpoints") if procs.is_main else None)
    if path is None:
        raise CheckpointError(
            f"{output_dir}: no checkpoint to test; train first or set TEST.CHECKPOINT_FILE_PATH"
        )
    return path


def settings_of(checkpoint: Checkpoint, overrides: Sequence[str] = ()) -> Any:
    """The config in a checkpoint of this package; of a public network, one that tests it.

    Another number of crops has the short side that the checkpoint names and predictions have,
    unless a size is changed too. OUTPUT_DIR is runs/test/<name of the file> where nothing says it.
    """
    text = checkpoint.recipe
    if not text and checkpoint.network and checkpoint.input.num_frames:
        text = yaml.safe_dump(_settings_to_test(checkpoint))
    if not text:
        raise CheckpointError(
            f"{checkpoint.path}: holds no settings; name the config of its network with --cfg"
        )
    seen, changed = checkpoint.input, {key for key, _ in setting_pairs(overrides)}
    if seen.num_frames and seen.short_side and not changed.intersection(SIZES):
        overrides = [f"DATA.TEST_SHORT_SIDE={seen.short_side}", *overrides]
    return config_from_text(text, checkpoint.path, overrides, f"runs/test/{_name_of(checkpoint)}")


def _name_of(checkpoint: Checkpoint) -> str:
    """That of its file; of a published folder, the folder's."""
    path = Path(checkpoint.path)
    return path.absolute().parent.name if path.name == PUBLISHED else path.stem


def _settings_to_test(checkpoint: Checkpoint) -> dict[str, Any]:
    """Settings for a test when only the network and its input are known."""
    seen, act = checkpoint.input, checkpoint.head_act or ""
    data = {setting: getattr(seen, name) for name, setting in IN_DATA.items()}
    data |= {
        "MEAN": list(seen.mean or ()),
        "STD": list(seen.std or ()),
        "REVERSE_INPUT_CHANNEL": seen.reverse_channels,
        "TEST_CROP_SIZE": seen.crop_size,
        "TEST_SHORT_SIDE": seen.short_side or 0,
        "MULTI_LABEL": checkpoint.multi_label,
    }
    tree = network_settings(config_of(network_of(checkpoint))) | {"DATA": data}
    tree["MODEL"] |= {
        "HEAD_ACT": act,
        "LOSS_FUNC": "bce_logit" if checkpoint.multi_label else "cross_entropy",
    }
    return tree


def _trained_model(cfg: Any, checkpoint: Checkpoint) -> tuple[nn.Module, list[str]]:
    """The network with a checkpoint's weights (their moving average, if there is one), and its
    class names.

    Raises CheckpointError if the weights were trained for another network or another input.
    """
    settings, multi_label = task_of(cfg).input_spec(), cfg.DATA.MULTI_LABEL
    if checkpoint.network and not checkpoint.recipe:
        name, build = find_name(cfg.MODEL.ARCH, cfg.RESNET.DEPTH), partial(build_model, cfg)
        # What is built only shows the settings: `octavize` may have changed the one of the file.
        model, network = network_of(checkpoint), resolved(on_meta(name, build).config)
        trained = replace(checkpoint, network=resolved(config_of(model)))
    else:
        model, trained = build_model(cfg), checkpoint
        network = model.config
    check_tested(trained, Checkpoint(network=network, input=settings, multi_label=multi_label))
    # Of a training they are what its start weights' names had, not its own.
    clear = () if checkpoint.network else cfg.TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN
    load_weights(model, checkpoint, new_classes=False, clear_prefixes=clear)
    check_said_input(cfg, checkpoint)
    tell_other_clips(cfg, checkpoint, logging.WARNING)
    return model, list(checkpoint.class_names) or task_of(cfg).class_names()


def log_tenths(what: str) -> Callable[[int, int], None]:
    """A function that logs ten lines (done, total), whatever the length of the list."""

    def log(done: int, total: int) -> None:
        if done * 10 // max(total, 1) > (done - 1) * 10 // max(total, 1):
            logger.info("%s: %d of %d videos", what, done, total)

    return log
