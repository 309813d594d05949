"""Every command that README and docs show runs: as it stands, on stand-ins for the files it names,
shortened.

A block (commands on neighboring lines) runs from top to bottom in a folder of its own, as a reader
would run it.
"""

import json
import re
import runpy
import shlex
import tarfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from forked import Forked, start_forked, torchrun

from octvideo import create_model
from octvideo.data.prepare.make_lists import write_lists
from octvideo.data.prepare.splits import folder_lists
from octvideo.data.video.encode import write_video
from octvideo.study import children

REPO = Path(__file__).parent.parent.parent
PAGES = [
    REPO / "README.md",
    *sorted((REPO / "docs").glob("*.md")),
    *sorted(REPO.glob("*/README.md")),
]

NOT_RUN = {
    "make demo": "CI runs it",
    "octvideo fetch kinetics400 --split val train --out kinetics400 --shards": (
        "a server of its own"
    ),
    "octvideo train --cfg kinetics400/oct_i3d DATA.LIST_FORMAT=shards DATA.PATH_TO_DATA_DIR=kinetics400": (
        "after it"
    ),
    "make test": "runs this file",
    'octvideo inflate --cfg configs/finetune/oct_i3d.yaml resnet50.pth out.pyth --images FOLDER --batches 2 MODEL.ARCH=c2d MODEL.NUM_CLASSES=6 RESNET.STRIDE_1X1=True "DATA.MEAN=[0.45,0.45,0.45]" "DATA.STD=[0.225,0.225,0.225]" DATA.TRAIN_CROP_SIZE=112 DATA.NUM_FRAMES=2 OCTCONV.ALPHA=.1 OCTCONV.SMOOTHEST_LOW=true OCTCONV.DOWNSAMPLE=stride': (
        "pictures of real clips; tests/weights/test_inflate_split_effect.py"
    ),
    "octvideo train --cfg ... DATA.LIST_FORMAT=shards DATA.PATH_TO_DATA_DIR=s3://bucket/shards": (
        "tests/data/shards/test_s3.py"
    ),
    "torchrun --nproc_per_node 8 -m octvideo predict --checkpoint best.pyth videos.txt --output rows.csv --views 1x1": (
        "tests/engine/prediction/test_share.py"
    ),
    "pip install -r requirements.txt && pip install --no-deps -e .": "the Makefile installs so",
    "octvideo complexity --paper": (
        "half a minute; tests/test_complexity.py goes through its rows"
    ),
    "octvideo complexity --octavize x3d_m ptv:i3d_r50 resnet50": (
        "some minutes; tests/octavize/test_tool.py"
    ),
    "octvideo complexity --octavize torchvision:resnet50 timm:efficientnet_b0": (
        "needs torchvision and timm; tests/octavize/test_tool.py"
    ),
    "pip install 'octvideo[serve]'": "the Makefile installs so",
    "octvideo serve --checkpoint best.pyth --optimize --port 8000": "goes on; tests/serve",
    "octvideo predict --checkpoint best.pyth --live rtsp://camera/stream": (
        "goes on; tests/data/video/test_live.py"
    ),
    "octvideo predict --checkpoint best.pyth --live 0 --events --on 0.6 --off 0.4": (
        "needs a camera"
    ),
    "octvideo predict --checkpoint best.pyth --live recording.ts": "tests/data/video/test_live.py",
    "octvideo export --checkpoint runs/demo/oct_i3d/checkpoints/best.pyth --output model.onnx --lowered": (
        "tests/deploy/test_export.py"
    ),
    "octvideo train FOLDER --model i3d_r50 --weights resnet50.pth --size small --epochs 2 --views 10x3"
    " RESNET.STRIDE_1X1=True DATA.MEAN=[.45,.45,.45] DATA.STD=[.225,.225,.225]": (
        "needs image weights and minutes; `octvideo train FOLDER` is tested in tests/runs/test_fit.py"
    ),
    "sbatch --nodes 8 tools/slurm.sbatch --cfg ... OUTPUT_DIR /shared/runs/a": "needs Slurm",
}
# Behind every command with --cfg: a network and an epoch of seconds.
SHORT = [
    *(
        "DATA.NUM_FRAMES=4",
        "DATA.SAMPLING_RATE=2",
        "DATA.TRAIN_CROP_SIZE=32",
        "DATA.TEST_CROP_SIZE=32",
    ),
    *("DATA.TRAIN_JITTER_SCALES=[32,40]", "DATA_LOADER.NUM_WORKERS=0", "TRAIN.BATCH_SIZE=2"),
    *("RESNET.DEPTH=26", "RESNET.WIDTH_PER_GROUP=16", "BN.USE_PRECISE_STATS=false"),
    *(
        "SOLVER.MAX_EPOCH=1",
        "SOLVER.WARMUP_EPOCHS=0",
        "TENSORBOARD.ENABLE=false",
        "LOG_MODEL_INFO=false",
        "TEST.NUM_ENSEMBLE_VIEWS=2",
    ),
]

# Behind `octvideo train FOLDER`.
SHORT_PROBE = [setting for setting in SHORT if "EPOCH" not in setting]
SHORT_RUN = [*SHORT_PROBE, "--epochs", "1"]

ON_A_LINE = r"^(?: {4})?((?:octvideo |python tools/|torchrun |sbatch |make |pip ).*?)(?: {2,}#.*)?$"
IN_A_SENTENCE = r"`((?:octvideo [a-z-]+ |python tools/|torchrun )[^`]+)`"


def commands(page: Path) -> Iterator[tuple[int, str]]:
    """Line numbers and commands."""
    text = page.read_text()
    for match in re.finditer(f"{ON_A_LINE}|{IN_A_SENTENCE}", text, re.MULTILINE):
        yield text[: match.start()].count("\n") + 1, " ".join((match[1] or match[2]).split())


def blocks() -> Iterator[tuple[str, list[str]]]:
    """Where and what: commands on neighboring lines, unless all of them have stood in a block
    before."""
    seen: set[str] = set()
    for page in PAGES:
        found = [(line, command) for line, command in commands(page) if command not in NOT_RUN]
        starts = [
            0,
            *(i for i, (a, b) in enumerate(pairwise(found), 1) if b[0] > a[0] + 1),
            len(found),
        ]
        for start, end in pairwise(starts):
            block = [in_full(command) for _, command in found[start:end]]
            if not seen.issuperset(block):
                yield f"{page.relative_to(REPO)}:{found[start][0]}", block
            seen.update(block)


def in_full(command: str) -> str:
    """What an ellipsis stands for; two processes instead of eight, four runs of a sweep instead of
    nine."""
    named = command.replace("--cfg ...", "--cfg configs/kinetics400/oct_i3d.yaml")
    named = named.replace("OCTCONV.ALPHA=0,.1,.2 RNG_SEED=1,2,3", "OCTCONV.ALPHA=0,.1 RNG_SEED=1,2")
    return named.replace("--nproc_per_node 8", "--nproc_per_node 2")


BLOCKS = [
    pytest.param(
        block,
        id=where,
        marks=(
            [pytest.mark.slow] if re.search("train_net|octvideo train|export", str(block)) else []
        ),
    )
    for where, block in blocks()
]


@pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)  # torch.onnx
@pytest.mark.parametrize("block", BLOCKS)
def test_a_block_of_commands_runs(block, run_tool, run_command, sandbox, tmp_path, monkeypatch):
    monkeypatch.chdir(sandbox)
    monkeypatch.setenv("OCTVIDEO_OFFLINE", "1")
    monkeypatch.setattr(
        "octvideo.engine.threads.available_cores", lambda: 1
    )  # the tests share the cores
    # A sweep trains in programs.
    monkeypatch.setattr(children, "subprocess", SimpleNamespace(Popen=start_forked))

    for command in block:
        words = [*shlex.split(command), *(SHORT if "--cfg" in command else [])]
        if words[:2] == ["octvideo", "train"] and "--cfg" not in words:
            words += SHORT_PROBE if "--probe" in words else SHORT_RUN
        if words[0] == "torchrun":
            _torchrun(words[1:], tmp_path / "said")
        else:
            done = (
                run_command(words)
                if words[0] == "octvideo"
                else run_tool(Path(words[1]).stem, *words[2:])
            )
            assert done.status == 0, f"{command}\n{done.out}\n{done.err}"
        if "--output" in words:
            assert Path(words[words.index("--output") + 1]).exists(), command


def test_what_is_not_run_is_in_the_docs():
    shown = {command for page in PAGES for _, command in commands(page)}

    assert set(NOT_RUN) <= shown


def _torchrun(words: list[str], output: Path) -> None:
    """--standalone finds a free port; two workers of the tests may come here at once."""
    run = Forked(torchrun, "--standalone", *words, output=output)
    said = run.communicate(timeout=300)
    assert run.returncode == 0, said


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> list[Path]:
    """Eight different clips of 16 frames."""
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(0)
    for i in range(8):
        write_video(folder / f"{i}.mp4", random.integers(0, 255, (16, 36, 48, 3), np.uint8))
    return sorted(folder.iterdir())


@pytest.fixture(scope="session")
def official_weights(tmp_path_factory) -> Path:
    """A small network in the format of the official files; its weights are drawn."""
    golden, folder = REPO / "tests" / "golden" / "official", tmp_path_factory.mktemp("official")
    rule = runpy.run_path(str(golden / "write_params.py"))
    oracle = json.loads((golden / "resnet26_v2_a0250.json").read_text())
    rule["write"](folder / "net-0000.params", rule["parameters"](oracle))
    with tarfile.open(folder / "official.tar", "w") as tar:
        tar.add(folder / "net-0000.params", "net-0000.params")
    return folder / "official.tar"


@pytest.fixture
def sandbox(
    tmp_path: Path, clips: list[Path], official_weights: Path, tiny_checkpoint: Path
) -> Path:
    """A folder with the repository's tools and configs, and a small stand-in for every file that
    the docs name."""

    def put(path: str, source: Path) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).symlink_to(source)

    for name in ("tools", "configs", "data_lists"):
        put(name, REPO / name)
    put("a02_resnet-50_alpha-0.250.tar", official_weights)
    put("video.mp4", clips[0])
    put("long.mp4", clips[0])
    for i, clip in enumerate(clips):
        put(f"my_videos/{'wave' if i < 4 else 'clap'}/{i}.mp4", clip)
    write_lists(folder_lists(tmp_path / "my_videos"), tmp_path / "my_videos")
    (tmp_path / "demo_data").mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / "demo_data" / f"{split}.csv").write_text(
            "".join(f"{clip} {i}\n" for i, clip in enumerate(clips))
        )
    _put_kinetics(tmp_path, clips, put)
    _put_action_sets(tmp_path, clips, put)
    _put_weights(tmp_path, torch.load(tiny_checkpoint))
    return tmp_path


def _put_kinetics(folder: Path, clips: list[Path], put: Callable[[str, Path], None]) -> None:
    """Clips in VIDEOS, also called videos; official annotations; lists in data/ and lists/."""
    rows = {"train": range(4), "validate": range(4, 6), "test": range(6, 8)}
    (folder / "data" / "kinetics400").mkdir(parents=True)
    for split, numbers in rows.items():
        lines = [f"abseiling,{i:011d},5,15,{split}" for i in numbers]
        (folder / f"{split}.csv").write_text(
            "\n".join(["label,youtube_id,time_start,time_end,split", *lines, ""])
        )
        listed = "".join(f"{clips[i]} 0\n" for i in numbers)
        (folder / "data" / "kinetics400" / f"{split.replace('validate', 'val')}.csv").write_text(
            listed
        )
        for i in numbers:
            put(f"VIDEOS/abseiling/{i:011d}_000005_000015.mp4", clips[i])
    put("videos", folder / "VIDEOS")
    put("lists/kinetics400", folder / "data" / "kinetics400")


def _put_action_sets(folder: Path, clips: list[Path], put: Callable[[str, Path], None]) -> None:
    """One class of UCF101, one of HMDB51, and their official split files."""
    ucf, hmdb = folder / "ucfTrainTestlist", folder / "testTrainMulti_7030_splits"
    ucf.mkdir()
    hmdb.mkdir()
    (ucf / "classInd.txt").write_text("1 Archery\n")
    (ucf / "trainlist01.txt").write_text("Archery/v_Archery_g01_c01.avi 1\n")
    (ucf / "testlist01.txt").write_text("Archery/v_Archery_g02_c01.avi\n")
    (hmdb / "wave_test_split1.txt").write_text("somebody_waves.avi 1\nsomebody_else_waves.avi 2\n")
    names = (
        "Archery/v_Archery_g01_c01",
        "Archery/v_Archery_g02_c01",
        "wave/somebody_waves",
        "wave/somebody_else_waves",
    )
    for name, clip in zip(names, clips, strict=False):
        put(f"VIDEOS/{name}.avi", clip)


def _put_weights(folder: Path, demo: dict[str, Any]) -> None:
    """The demo's checkpoint; resnet50.pth, of the depth and width that SHORT sets; best.pyth, of
    Kinetics-400."""
    demo["meta"]["model"]["crop_size"] = 64  # torch.export pools no map of 1 x 1
    demo["meta"]["preprocessing"] |= {"crop_size": 64, "short_side": 64}
    image = create_model("resnet26", width_per_group=16)
    video = create_model("i3d_r26", alpha=0.1, width_per_group=16, crop_size=32)
    names = (REPO / "data_lists" / "kinetics400_classes.txt").read_text().splitlines()
    meta = {"format": 1, "model": video.config, "class_names": names, "preprocessing": {}}
    run = folder / "runs" / "demo" / "oct_i3d" / "checkpoints"
    run.mkdir(parents=True)
    torch.save(demo, run / "best.pyth")
    torch.save(
        {"model_state": image.state_dict(), "meta": {"model": image.config}},
        folder / "resnet50.pth",
    )
    torch.save({"model_state": video.state_dict(), "meta": meta}, folder / "best.pyth")
