"""The package as others install and import it."""

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

HEAVY = (
    "decord",
    "av",
    "tensorboard",
    "pytorchvideo",
    "matplotlib",
    "torchvision",
    "timm",
    "fvcore",
    "PIL",
)


def _python(code: str, *, python: str | Path = sys.executable, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, cwd=cwd, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_no_decoder_and_no_tensorboard():
    loaded = _python(f"import octvideo, sys; print([m for m in {HEAVY} if m in sys.modules])")

    assert loaded.strip() == "[]"


def test_importing_the_package_costs_little_beyond_torch():
    """CPU seconds of this process alone, the best of five: .3 is the bound, so that a busy machine does not fail it."""
    code = "import torch, time; t = time.process_time(); import octvideo; print(time.process_time() - t)"

    assert min(float(_python(code)) for _ in range(5)) < 0.3


def _sources(repo: Path) -> dict[str, str]:
    return {str(p.relative_to(repo)): p.read_text() for p in (repo / "octvideo").rglob("*.py")}


@pytest.mark.parametrize(
    ("what", "only_in"),
    [
        ("import decord", {"octvideo/data/video/decord_child.py"}),
        ("import av\n", {"octvideo/data/video/container.py", "octvideo/data/video/encode.py"}),
        ("torch.distributed", {"octvideo/engine/distributed.py"}),
        ("import torchvision", set()),
        ("from torchvision import", set()),
        ("from torchvision.", set()),
        ("import timm", set()),
        ("allow_pickle=True", set()),
        ("weights_only=False", set()),
        ("yaml.load(", {"octvideo/config/yaml_text.py"}),  # with its own SafeLoader
        ('eval("', set()),
    ],
)
def test_what_may_stand_in_one_place_only_stands_there(repo, what, only_in):
    imports = {
        path
        for path, text in _sources(repo).items()
        if any(
            what in f"{line.strip()}\n" and not line.strip().startswith(("#", '"'))
            for line in text.splitlines()
        )
    }

    assert imports <= only_in


def test_every_tool_says_how_it_is_used(repo):
    for tool in sorted((repo / "tools").glob("*.py")):
        text = tool.read_text()
        assert f"tools/{tool.name}" in text.split('"""')[1], (
            f"{tool.name}: its docstring shows no command"
        )
        assert "exit_on_user_error" in text, f"{tool.name}: a user's mistake ends in a traceback"


def test_no_tool_is_imported(repo):
    for path, text in _sources(repo).items():
        assert "from tools" not in text, path
        assert "import tools" not in text, path


@pytest.mark.slow
def test_a_wheel_in_an_environment_of_its_own_trains_and_predicts(repo, tmp_path):
    """Built from the sources, installed where nothing of this repository is on the path, used from another folder.

    The environment sees this one's dependencies through a .pth file, so that nothing is downloaded.
    """
    source = tmp_path / "source"
    _copy_sources(repo, source)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        tmp_path,
        source,
    ]
    subprocess.run([str(part) for part in build], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("octvideo-*.whl")
    venv.create(tmp_path / "env", with_pip=False)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    dependencies = [p for p in sys.path if p.endswith("site-packages")]
    target = tmp_path / "env" / "installed"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", target, wheel]
    subprocess.run([str(part) for part in install], check=True, capture_output=True)
    (site / "dependencies.pth").write_text("\n".join([str(target), *dependencies]))

    out = _python(
        WHEEL_USER.replace("REPO", str(repo)),
        python=tmp_path / "env" / "bin" / "python",
        cwd=tmp_path,
    )

    found = json.loads(out.splitlines()[-1])
    assert str(target) in found["file"]
    assert found["checkpoint"]
    assert abs(sum(found["probabilities"]) - 1) < 1e-3


def _copy_sources(repo: Path, target: Path) -> None:
    files = subprocess.run(
        [
            "git",
            "-C",
            str(repo),
            "ls-files",
            "octvideo",
            "setup.py",
            "pyproject.toml",
            "README.md",
            "LICENSE",
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in files:
        if (repo / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((repo / name).read_bytes())


WHEEL_USER = """
import sys
sys.path[:] = [p for p in sys.path if p != "REPO"]
import json
from pathlib import Path

import octvideo
from octvideo.assembly import train
from octvideo.config import load_config
from octvideo.data.prepare.demo import write_demo_data
from octvideo.engine.distributed import processes

write_demo_data("data", num_clips={"train": 16, "val": 8, "test": 8})
Path("run.yaml").write_text(\"\"\"
DATA: {PATH_TO_DATA_DIR: data, NUM_FRAMES: 4, SAMPLING_RATE: 2, TRAIN_JITTER_SCALES: [32, 32], TRAIN_CROP_SIZE: 32,
       TEST_CROP_SIZE: 32, RANDOM_FLIP: false}
MODEL: {ARCH: i3d, NUM_CLASSES: 8}
RESNET: {DEPTH: 26, WIDTH_PER_GROUP: 16}
OCTCONV: {ALPHA: 0.25}
TRAIN: {BATCH_SIZE: 8, EVAL_PERIOD: 1, CHECKPOINT_PERIOD: 1}
SOLVER: {MAX_EPOCH: 1}
DATA_LOADER: {NUM_WORKERS: 0}
OUTPUT_DIR: run
\"\"\")
with processes() as procs:
    train(load_config("run.yaml", []), procs)
checkpoint = next(Path("run/checkpoints").glob("*.pyth"))
video = next(Path("data").rglob("*.mp4"))
found = octvideo.load(checkpoint).predict(video, views="1x1", top_k=8)
probabilities = [p.probability for p in found]
print(json.dumps({"file": octvideo.__file__, "checkpoint": str(checkpoint), "probabilities": probabilities}))
"""
