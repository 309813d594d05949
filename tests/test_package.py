"""The package as others install and import it."""

import ast
import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

from octvideo.weights.describe import CLASS_NAMES

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


def test_a_network_on_the_meta_device_does_not_import_torchs_compiler():
    """Reading anybody's weights builds one, to find the network that they are of."""
    code = (
        "import octvideo, sys, torch\n"
        "with torch.device('meta'):\n"
        "    for name in ('resnet26', 'i3d_r26', 'slowfast_r26', 'mobilenet_v2'):\n"
        "        octvideo.create_model(name)\n"
        "print('torch._dynamo' in sys.modules)"
    )

    assert _python(code).strip() == "False"


def test_importing_the_package_costs_little_beyond_torch():
    """CPU seconds of this process alone, the best of up to five: .3 is the bound, so that a busy
    machine does not fail it."""
    code = (
        "import torch, time; t = time.process_time(); import octvideo; print(time.process_time()"
        " - t)"
    )

    assert any(float(_python(code)) < 0.3 for _ in range(5))


def _sources(repo: Path) -> dict[str, str]:
    return {str(p.relative_to(repo)): p.read_text() for p in (repo / "octvideo").rglob("*.py")}


@pytest.mark.parametrize(
    ("what", "only_in"),
    [
        ("import decord", {"octvideo/data/video/decord_child.py"}),
        (
            "import av\n",
            {f"octvideo/data/video/{name}.py" for name in ("container", "encode", "sound")},
        ),
        (
            "torch.distributed",
            {"octvideo/engine/distributed.py", "octvideo/engine/process_group.py"},
        ),
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


COMPREHENSIONS = ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp


@pytest.mark.parametrize("folder", ["octvideo", "benchmarks", "tools", "docs"])
def test_no_comprehension_holds_another(repo, folder):
    nested = []
    for path in sorted((repo / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            inside = sum(isinstance(part, COMPREHENSIONS) for part in ast.walk(node))
            if isinstance(node, COMPREHENSIONS) and inside > 1:
                nested.append(f"{path.relative_to(repo)}:{node.lineno}")

    assert nested == []


def test_no_file_of_the_package_is_longer_than_350_lines(repo):
    lines = {path: text.count("\n") for path, text in _sources(repo).items()}

    assert [f"{path}: {count}" for path, count in lines.items() if count > 350] == []


def test_every_tool_says_how_it_is_used(repo):
    for tool in sorted((repo / "tools").glob("[!_]*.py")):
        text = tool.read_text()
        assert f"tools/{tool.name}" in text.split('"""')[1], (
            f"{tool.name}: its docstring shows no command"
        )
        assert "run_command(" in text, f"{tool.name}: does other than the command of octvideo/cli/"


def test_a_script_runs_from_a_clone_that_is_not_installed(repo, tmp_path):
    command = [sys.executable, "-S", repo / "tools" / "train_net.py", "--help"]
    dependencies = os.pathsep.join(p for p in sys.path if p.endswith("site-packages"))

    # -S: without the .pth file that names this clone.
    there = {"PYTHONPATH": dependencies, "PATH": os.environ["PATH"]}
    shown = subprocess.run(command, cwd=tmp_path, env=there, capture_output=True, text=True)
    bare = subprocess.run(command, cwd=tmp_path, env={}, capture_output=True, text=True)

    assert shown.returncode == 0, shown.stderr
    assert "octvideo train" in shown.stdout
    assert bare.stderr == "error: no torch here; pip install -r requirements.txt\n"
    assert bare.returncode == 2


def test_no_tool_is_imported(repo):
    for path, text in _sources(repo).items():
        assert "from tools" not in text, path
        assert "import tools" not in text, path


@pytest.fixture(scope="module")
def wheel(repo, tmp_path_factory) -> Path:
    """Built from the files that git knows."""
    folder = tmp_path_factory.mktemp("wheel")
    _copy_sources(repo, folder / "source")
    options = ["--no-deps", "--no-build-isolation", "-q", "-w", str(folder)]
    build = [sys.executable, "-m", "pip", "wheel", *options, str(folder / "source")]
    subprocess.run(build, check=True, capture_output=True)
    (built,) = folder.glob("octvideo-*.whl")
    return built


@pytest.mark.slow
def test_a_wheel_carries_configs_class_lists_a_command_and_extras(repo, wheel):
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata, entry_points = (
            archive.read(next(name for name in names if name.endswith(end))).decode()
            for end in ("/METADATA", "/entry_points.txt")
        )

    for folder, ending in (("configs", ".yaml"), ("data_lists", ".txt")):
        files = {str(path.relative_to(repo)) for path in (repo / folder).rglob(f"*{ending}")}
        assert files
        assert {f"octvideo/{name}" for name in files} <= names
    assert {f"octvideo/weights/{path.name}" for path in CLASS_NAMES.values()} <= names
    assert "octvideo = octvideo.cli:main" in entry_points
    assert {"export", "all"} <= set(re.findall("Provides-Extra: (.*)", metadata))
    assert re.search("Requires-Dist: decord.*; .*platform_machine == .x86_64", metadata)


@pytest.mark.slow
def test_a_wheel_in_an_environment_of_its_own_trains_and_predicts_in_an_empty_folder(
    repo, wheel, tmp_path
):
    """Without the optional libraries, and with nothing of this repository on the path.

    The environment sees this one's dependencies through a .pth file, so that nothing is downloaded.
    """
    venv.create(tmp_path / "env", with_pip=False)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    target, empty = tmp_path / "env" / "installed", tmp_path / "empty"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile", "-q"]
    install += ["--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    dependencies = [p for p in sys.path if p.endswith("site-packages")]
    (site / "dependencies.pth").write_text("\n".join([str(target), *dependencies]))
    empty.mkdir()

    run = empty / "runs" / "demo" / "oct_i3d"
    demo = ["demo-data", "demo_data", "--clips", "8", "4", "4"]
    train = ["train", "--cfg", "demo/oct_i3d", *SECONDS]
    predict = ["predict", "--checkpoint", str(run / "checkpoints" / "best.pyth"), "--json"]
    code = (
        f"{WITHOUT_OPTIONAL.replace('REPO', str(repo))}\n"
        "from pathlib import Path\n"
        "from octvideo.cli import main\n"
        f"main({demo})\n"
        f"main({train})\n"
        "video = next(Path('demo_data').rglob('*.mp4'))\n"
        "print('named:')\n"
        f"main([*{predict}, '--views', '1x1', '--video', str(video)])\n"
    )

    said = _python(code, python=tmp_path / "env" / "bin" / "python", cwd=empty)

    named = json.loads(said.rpartition("named:\n")[2])
    assert (run / "report.html").is_file()
    assert len(named["predictions"]) == 5


SECONDS = [
    *("DATA.NUM_FRAMES=4", "DATA.SAMPLING_RATE=2", "DATA.TRAIN_CROP_SIZE=32"),
    *("DATA.TEST_CROP_SIZE=32", "DATA.TRAIN_JITTER_SCALES=[32,40]", "DATA_LOADER.NUM_WORKERS=0"),
    *("TRAIN.BATCH_SIZE=8", "TEST.NUM_ENSEMBLE_VIEWS=1", "RESNET.WIDTH_PER_GROUP=16"),
    *("SOLVER.MAX_EPOCH=1", "SOLVER.WARMUP_EPOCHS=0", "TENSORBOARD.ENABLE=false"),
]

WITHOUT_OPTIONAL = """
import sys
sys.path[:] = [p for p in sys.path if p != "REPO"]
for name in ("decord", "pytorchvideo", "tensorboard", "matplotlib"):
    sys.modules[name] = None
import octvideo
assert "REPO" not in octvideo.__file__
"""


def _copy_sources(repo: Path, target: Path) -> None:
    folders = ("octvideo", "configs", "data_lists")
    known = ["git", "-C", str(repo), "ls-files", *folders, "setup.py", "pyproject.toml"]
    files = subprocess.run(
        [*known, "README.md", "LICENSE"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in files:
        if (repo / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes((repo / name).read_bytes())
