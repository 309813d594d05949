"""Options that would change nothing where they stand are refused with one line, before any work."""

import shlex

import pytest

from octvideo.cli import main

NO_NETWORK = "--checkpoint none.pyth"
REFUSED = {
    "complexity --cfg demo/oct_i3d --alpha 0.5": "--alpha: without effect here; --cfg takes --input",
    "complexity --cfg demo/oct_i3d --alpha 0": "--alpha: ",
    "complexity --cfg demo/oct_i3d --model i3d_r50": "--model and --cfg: one of them",
    "complexity --paper --octavize resnet50": "--paper and --octavize: one of them",
    "complexity --table 1 --model i3d_r50": "--paper and --model: one of them",
    "complexity --table 1 --input 8 32 32": "--input: ",
    "complexity --model i3d_r50 --layers": "--layers: ",
    "complexity --model i3d_r50 --json a.json": "--json: ",
    "complexity --model i3d_r50 OCTCONV.ALPHA=.1": "name it with --cfg",
    "convert i3d_r50_k400 out.pyth --mean .4": "--mean: ",
    "convert i3d_r50_k400 out.pyth --std .4 --class-names a.txt": "--std, --class-names: ",
    "convert i3d_r50_k400 out.pyth --stride-1x1": "--stride-1x1: ",
    "convert in.pth out.pyth --stride-1x1 --input 8x8": "--stride-1x1: ",
    "convert in.params out.pyth --stride-1x1": "--stride-1x1 is of ResNets",
    f"predict {NO_NETWORK} a.mp4 --events": "--events: ",
    f"predict {NO_NETWORK} a.mp4 --on .7": "--on: ",
    f"predict {NO_NETWORK} a.mp4 --give-up-seconds 3": "--give-up-seconds: ",
    f"predict {NO_NETWORK} a.mp4 --timeout-seconds 3": "--timeout-seconds: ",
    f"predict {NO_NETWORK} a.mp4 --output a.csv --threshold .1": "--threshold: ",
    f"predict {NO_NETWORK} a.mp4 --position top-left": "--position: ",
    f"predict {NO_NETWORK} a.mp4 --window-seconds 1": "--window-seconds: ",
    f"predict {NO_NETWORK} a.mp4 --output b.mp4 --json": "--json: ",
    f"predict {NO_NETWORK} a.mp4 --output b.mp4 --views 1x1 --batch 2": "--batch, --views: ",
    f"predict {NO_NETWORK} --live 0 --views 1x1": "--views: ",
    f"predict {NO_NETWORK} --live 0 --overwrite": "--overwrite: ",
    f"predict {NO_NETWORK} --live 0 --off .1": "--off: ",
    f"predict {NO_NETWORK} --live a.ts --give-up-seconds 5": "--give-up-seconds: ",
    f"predict {NO_NETWORK} --live 0 --events --top-k 3": "--top-k: ",
    f"features {NO_NETWORK} a.mp4 --output f.npz --window-seconds 2 --views 2x1": "--views: ",
    f"export {NO_NETWORK} --output a.onnx --license mit": "--license: ",
    f"export {NO_NETWORK} --card mine --private": "--private: ",
    f"serve {NO_NETWORK} --allow-private": "--allow-private: ",
    "train --cfg demo/oct_i3d --model i3d_r50 --no-check": "--model, --no-check: ",
    "train --cfg demo/oct_i3d --alpha 0": "--alpha: ",
    "train videos --epochs 0": "--epochs 0: give 1 or more",
    "train videos --probe --epochs 3": "a probe solves for its classifier at once",
    "test --cfg demo/oct_i3d --diagnose DATA.MULTI_LABEL=true MODEL.LOSS_FUNC=bce_logit": (
        "--diagnose: "
    ),
    "benchmark --memory-saving": "--memory-saving: ",
    "benchmark --threads 0": "--threads 0, --rounds 15, --batch 1: each is 1 or more",
    "benchmark --rounds -3": "--rounds -3",
    "benchmark --batch 0": "--batch 0",
    "inflate --cfg demo/oct_i3d in.pth out.pyth --batches 2": "--batches: ",
    "shard train.csv --out shards --crf 30": "--crf: ",
    "fetch kinetics400 --out a --shards --short-side 0 --gop 6": "--gop: ",
}


@pytest.mark.parametrize("command", REFUSED)
def test_an_option_without_effect_is_refused(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit, match="2"):
        main(shlex.split(command))

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert REFUSED[command] in line
    assert not list(tmp_path.iterdir())


def test_a_default_that_is_written_out_is_no_contradiction(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit):
        main(shlex.split(f"predict {NO_NETWORK} a.mp4 --threshold 0 --views 10x3"))

    assert "a.mp4: there is no such file" in capsys.readouterr().err
