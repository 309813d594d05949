"""`octvideo COMMAND`: every command can be asked for help, and a wrong word gets one line."""

import importlib
import re
import subprocess
import sys

import numpy as np
import pytest

import octvideo
from octvideo.cli import main
from octvideo.cli.main import COMMANDS
from octvideo.data.video.encode import write_video


def test_without_a_command_all_of_them_are_listed(capsys):
    main([])

    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_shows_examples_of_itself(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])

    assert f"octvideo {name} " in capsys.readouterr().out.split("\n\n", 1)[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_an_example_of_a_command_is_one_line_that_can_be_pasted(name):
    page = importlib.import_module(f"octvideo.cli.{name.replace('-', '_')}").__doc__
    blocks = [block.strip() for block in page.split("\n\n") if "octvideo " in block]
    blocks = [block for block in blocks if block.startswith(("octvideo ", "torchrun "))]

    assert blocks
    for example in "\n".join(blocks).split("\n"):
        assert example.strip().startswith(("octvideo ", "torchrun ", "curl ")), example
        assert len(re.findall(r"\boctvideo [a-z]", example)) <= 1, example


def test_every_script_of_tools_is_a_command(repo):
    for script in (repo / "tools").glob("[!_]*.py"):
        name = script.read_text().rpartition('run_command("')[2].partition('"')[0]
        assert name in COMMANDS, script.name


def test_a_wrong_command_is_one_line_with_the_nearest_one(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["trian"])

    assert capsys.readouterr().err == "error: there is no command 'trian'; did you mean train?\n"


def test_the_version_is_the_package_s(capsys):
    main(["--version"])

    assert capsys.readouterr().out == f"octvideo {octvideo.__version__}\n"


def test_an_interruption_ends_in_one_line(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("octvideo.cli.check.run", interrupted)

    with pytest.raises(SystemExit, match="130"):
        main(["check", "train.csv"])

    assert capsys.readouterr().err == "interrupted; the same command continues\n"


def test_the_package_runs_as_a_module(repo, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "octvideo", "doctor", "models", "i3d_r2*"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(repo), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )

    assert "i3d_r26" in done.stdout


@pytest.mark.parametrize("name", ["FILE", "FILE/x", "x" * 300])
@pytest.mark.parametrize(
    "words",
    [
        "sweep --cfg demo/oct_i3d OCTCONV.ALPHA=0,.1 --out",
        "train VIDEOS --model i3d_r26 --size small --weights none --out",
        "export --checkpoint CHECKPOINT --card",
        "lists folders VIDEOS --out",
        "check LIST.csv --out",
        "demo-data --clips 1 1 1",
        "visualize tradeoff --results r.json --output",
        "fetch kinetics400 --shards --out",
    ],
)
def test_an_output_folder_that_cannot_be_made_is_one_line_before_any_work(
    words, name, tiny_checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = words.replace("CHECKPOINT", str(tiny_checkpoint))
    (tmp_path / "FILE").write_text("kept")
    (tmp_path / "LIST.csv").write_text("a.mp4 0\n")
    (tmp_path / "VIDEOS" / "wave").mkdir(parents=True)
    (tmp_path / "VIDEOS" / "wave" / "a.mp4").write_bytes(b"")
    (tmp_path / "VIDEOS" / "clap").mkdir()
    (tmp_path / "VIDEOS" / "clap" / "b.mp4").write_bytes(b"b")

    with pytest.raises(SystemExit, match="2"):
        main([*words.split(), name])

    (line,) = capsys.readouterr().err.splitlines()
    place = rf"{name}(/work/[^/ ]+|/lists)?: cannot be (written to|read) \(.*\)"
    assert re.match(rf"error: {place}; name another (folder|run with --out)$", line)
    assert (tmp_path / "FILE").read_text() == "kept"


@pytest.mark.parametrize("name", ["FOLDER.mp4", "FILE/named.mp4", f"{'x' * 300}.mp4"])
def test_a_video_that_cannot_be_written_is_one_line(
    name, tiny_checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER.mp4").mkdir()
    (tmp_path / "FILE").write_text("kept")
    write_video(tmp_path / "clip.mp4", np.zeros((12, 32, 32, 3), np.uint8), fps=6)

    with pytest.raises(SystemExit, match="2"):
        main(["predict", "--checkpoint", str(tiny_checkpoint), "clip.mp4", "--output", name])

    line = capsys.readouterr().err.splitlines()[-1]
    assert re.match(rf"error: ({name}|FILE): (is a folder|cannot be written)", line)


def test_a_folder_in_the_place_of_an_exported_network_is_one_line(
    tiny_checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("octvideo.deploy.exported.write_network", None)
    (tmp_path / "model.onnx").mkdir()

    with pytest.raises(SystemExit, match="2"):
        main(["export", "--checkpoint", str(tiny_checkpoint), "--output", f"{tmp_path}/model.onnx"])

    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("model.onnx: is a folder; name a file to write")


def test_a_resized_video_whose_place_cannot_be_asked_for_is_one_line(tmp_path, capsys):
    (tmp_path / "VIDEOS").mkdir()
    write_video(tmp_path / "VIDEOS" / "a.mp4", np.zeros((4, 32, 32, 3), np.uint8), fps=6)

    with pytest.raises(SystemExit, match="2"):
        main(["resize", f"{tmp_path}/VIDEOS", "x" * 300, "--workers", "0"])

    line = capsys.readouterr().err.splitlines()[-1]
    assert line.endswith("cannot be written to (File name too long); name another folder")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("sweep --cfg demo/oct_i3d OCTCONV.ALPHA=0,.1 --ou A.B=c", "are required: --out"),
        ("inflate --cf A.B=c in.pth out.pth", "are required: --cfg"),
        ("visualize clips --cfg demo/oct_i3d --outp A.B=c", "unrecognized arguments: --outp"),
        ("train --cfg demo/oct_i3d --dry", "unrecognized arguments: --dry"),
    ],
)
def test_an_abbreviated_option_is_refused_as_its_value_could_be_a_setting(
    words, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit, match="2"):
        main(words.split())

    assert said in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train --cfg demo/oct_i3d MODEL.HEAD_ACT=a\nb", "'a\\nb'"),
        ("train --cfg demo/oct_i3d MODEL.LOSS_FUNC=a\x1bb", "'a\\x1bb'"),
        ("train --cfg demo/oct_i3d MODEL.NUM_CLASSES=a\rb", "command line"),
        ("train --cfg demo/oct_i3d DATA.PATH_TO_DATA_DIR=a\nb", "a\\nb"),
        ("demo-data --clips 1 1 1 FILE/a\nb", "FILE/a\\nb: cannot be written"),
        ("train --cfg a\nb.yaml", "a\\nb.yaml: there is no such file"),
        ("train a\nb", "a\\nb"),
        ("test --checkpoint a\u2028b", "a\\u2028b"),
    ],
)
def test_an_error_is_one_line_whatever_characters_a_user_wrote(
    words, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("kept")

    with pytest.raises(SystemExit, match="2"):
        main(words.split(" "))

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("demo-data NEW a\nb", "unrecognized arguments: a\\nb"),
        ("train --cfg demo/oct_i3d --a\x1bb", "unrecognized arguments: --a\\x1bb"),
        ("visualize clips --cfg demo/oct_i3d --a\u2028b", "--a\\u2028b"),  # a sub-command's
        ("visualize a\nb", "'a\\nb'"),
        ("resize IN OUT --crf a\rb", "'a\\rb'"),
    ],
)
def test_a_refused_argument_is_in_one_line_whatever_characters_it_has(
    words, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit, match="2"):
        main(words.split(" "))

    line = capsys.readouterr().err.splitlines()[-1]
    assert ": error: " in line
    assert said in line


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        ("demo-data NEW --clips 0 0 0", "at least one is 1 or more"),
        ("demo-data NEW --clips 8 -1 2", "each is 0 or more"),
        ("benchmark --alpha 0 --input 0 32", "each is 1 or more"),
        ("inflate --cfg none.yaml --images NEW --batches 0 in.pth out.pth", "is 1 or more"),
        ("inflate --cfg none.yaml --images NEW --batches -1 in.pth out.pth", "is 1 or more"),
    ],
)
def test_a_number_that_is_too_small_is_one_line_before_any_work(
    words, rule, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SystemExit, match="2"):
        main(words.split())

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --")
    assert rule in line
    assert not any(tmp_path.iterdir())
