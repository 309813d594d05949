"""Settings: what is accepted, and the one line that a mistake gets."""

import argparse
import logging
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octvideo.config import add_config_arguments, config_from_text, load_config, parse_with_settings
from octvideo.errors import ConfigError

PYSLOWFAST = Path(__file__).parents[1] / "golden" / "pyslowfast"
I3D = "MODEL: {ARCH: i3d}\n"
IMAGES = ["TRAIN.DATASET=imagenet", "TEST.DATASET=imagenet", "MODEL.ARCH=resnet50"]


@pytest.fixture(autouse=True)
def _log_reaches_the_test(monkeypatch):
    monkeypatch.setattr(logging.getLogger("octvideo"), "propagate", True)


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def problem(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("path", sorted(PYSLOWFAST.glob("*_R50.yaml")), ids=lambda path: path.stem)
def test_pyslowfast_files_load_unchanged(path, caplog):
    cfg = load_config(str(path))

    assert cfg.SOLVER.WEIGHT_DECAY == 1e-4
    assert cfg.SOLVER.WARMUP_EPOCHS == 34.0
    assert cfg.TEST.NUM_ENSEMBLE_VIEWS * cfg.TEST.NUM_SPATIAL_CROPS == 30
    assert cfg.NONLOCAL.LOCATION[1][0] == ([1, 3] if "NLN" in path.stem else [])
    assert (
        "not used: NUM_GPUS, NUM_SHARDS; start a process per GPU with torchrun --nproc_per_node 8"
        in caplog.text
    )


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_whatever_a_file_holds_it_loads_or_gets_one_line(text):
    message = ""
    try:
        config_from_text(text, "mine.yaml")
    except ConfigError as error:
        message = str(error)

    assert not message or message.startswith("mine.yaml")
    assert "\n" not in message


def test_an_empty_section_changes_nothing(write):
    assert load_config(write(I3D + "SOLVER:\n")).SOLVER.BASE_LR == 0.1


def test_null_sets_the_default_over_a_base(write):
    write(I3D + "OCTCONV: {ALPHA: .5}\nDATA: {MEAN: [0, 0, 0], PATH_PREFIX: a}", "base.yaml")
    path = write("_BASE_: base.yaml\nOCTCONV: {ALPHA: null}\nDATA: {MEAN: null, PATH_PREFIX: null}")

    cfg = load_config(path)

    assert (cfg.OCTCONV.ALPHA, cfg.DATA.MEAN, cfg.DATA.PATH_PREFIX) == (0.0, [0.45] * 3, "")
    assert load_config(path, ["OCTCONV.ALPHA=.5", "OCTCONV.ALPHA=null"]).OCTCONV.ALPHA == 0.0
    assert load_config(path).DATA.MEAN is not cfg.DATA.MEAN


TURNED = "DATA: {REVERSE_INPUT_CHANNEL: true, MEAN: [.1, .2, .3], STD: [.4, .5, .6]}\n"


def test_a_pyslowfast_file_that_reverses_channels_is_normalized_as_it_is_there(write, caplog):
    own, theirs = load_config(write(I3D + TURNED)), load_config(write(I3D + TURNED + "NUM_GPUS: 8"))

    assert (own.DATA.MEAN, own.DATA.STD) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert (theirs.DATA.MEAN, theirs.DATA.STD) == ([0.3, 0.2, 0.1], [0.6, 0.5, 0.4])
    assert "its DATA.MEAN [0.1, 0.2, 0.3] is [0.3, 0.2, 0.1] here" in caplog.text
    assert config_from_text(theirs.dump(), "its checkpoint").DATA == theirs.DATA


def test_a_pyslowfast_file_over_one_that_reverses_channels_turns_only_what_it_sets(write):
    write(I3D + TURNED, "base.yaml")
    path = write("_BASE_: base.yaml\nDATA: {MEAN: [.7, .8, .9]}\nNUM_GPUS: 8\n")

    cfg = load_config(path)

    assert (cfg.DATA.MEAN, cfg.DATA.STD) == ([0.9, 0.8, 0.7], [0.4, 0.5, 0.6])


THEIRS = I3D + "DATA: {MEAN: [.1, .2, .3]}\nNUM_GPUS: 8\n"


@pytest.mark.parametrize(
    ("text", "changes", "mean"),
    [
        (THEIRS, {"REVERSE_INPUT_CHANNEL": False}, [0.1, 0.2, 0.3]),
        (THEIRS, {"REVERSE_INPUT_CHANNEL": True}, [0.3, 0.2, 0.1]),
        (THEIRS, {"REVERSE_INPUT_CHANNEL": True, "MEAN": [0.4, 0.5, 0.6]}, [0.4, 0.5, 0.6]),
        (I3D + TURNED + "NUM_GPUS: 8", {"REVERSE_INPUT_CHANNEL": False}, [0.1, 0.2, 0.3]),
    ],
)
def test_a_pyslowfast_mean_goes_with_the_order_that_a_command_sets(write, text, changes, mean):
    path, words = write(text), [f"DATA.{name}={value}" for name, value in changes.items()]

    found = [load_config(path, words), load_config(path, DATA=changes)]

    assert [cfg.DATA.MEAN for cfg in found] == [mean] * 2


def test_a_pyslowfast_mean_below_a_file_that_reverses_channels_is_turned(write):
    write(THEIRS, "base.yaml")

    cfg = load_config(write("_BASE_: base.yaml\nDATA: {REVERSE_INPUT_CHANNEL: true}"))

    assert cfg.DATA.MEAN == [0.3, 0.2, 0.1]


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        (
            I3D + "DATA: {MEAN: [.1, .2, .3]}",
            ["DATA.REVERSE_INPUT_CHANNEL=true"],
            "its DATA.MEAN [0.1, 0.2, 0.3] is taken as blue first; set it too if it is not",
        ),
        (
            I3D + TURNED,
            ["DATA.REVERSE_INPUT_CHANNEL=false", "DATA.STD=[1,1,1]"],
            "REVERSE_INPUT_CHANNEL False its DATA.MEAN [0.1, 0.2, 0.3] is taken as red first",
        ),
        (I3D, ["DATA.REVERSE_INPUT_CHANNEL=true"], ""),
        (THEIRS, ["DATA.REVERSE_INPUT_CHANNEL=true"], ""),
        (I3D + TURNED, ["DATA.STD=[1,2,3]"], ""),
    ],
)
def test_a_mean_that_stays_while_the_order_of_channels_changes_is_said(
    write, caplog, text, overrides, says
):
    load_config(write(text), overrides)

    said = [line for line in caplog.messages if "is taken as" in line]
    assert len(said) == bool(says)
    assert all(says in line for line in said)


def test_a_text_may_be_empty_on_the_command_line(write):
    path = write(I3D + "DATA: {PATH_PREFIX: a}")

    assert load_config(path, ["DATA.PATH_PREFIX="]).DATA.PATH_PREFIX == ""


def test_a_list_that_a_file_leaves_empty_can_be_set(write):
    path = write(I3D + "TEST: {IMAGE_CROP_SIZES: []}")

    cfg = load_config(path, ["TEST.IMAGE_CROP_SIZES=[64]"])

    assert cfg.TEST.IMAGE_CROP_SIZES == [64]


def test_the_value_of_an_option_is_no_setting():
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    parser.add_argument("--paired")

    args = parse_with_settings(
        parser, ["--cfg", "a.yaml", "--paired", "OCTCONV.ALPHA", "OCTCONV.ALPHA", ".5"]
    )

    assert args.paired == "OCTCONV.ALPHA"
    assert args.settings == ["OCTCONV.ALPHA", ".5"]


@pytest.mark.parametrize(
    "words",
    [
        "--cfg a.yaml OCTCONV.ALPHA -1 --dry-run --opts RNG_SEED 2 E=3 in.pth out.pth",
        "in.pth OCTCONV.ALPHA -1 --cfg a.yaml RNG_SEED 2 out.pth E=3 --dry-run",
        "OCTCONV.ALPHA -1 RNG_SEED 2 E=3 in.pth out.pth --dry-run --cfg a.yaml",
    ],
)
def test_settings_stand_anywhere_between_the_other_arguments(words):
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--dry-run", action="store_true")
    add_config_arguments(parser)

    args = parse_with_settings(parser, words.split())

    assert (args.cfg, args.dry_run, args.source, args.target) == (
        "a.yaml",
        True,
        "in.pth",
        "out.pth",
    )
    assert args.settings == ["OCTCONV.ALPHA", "-1", "RNG_SEED", "2", "E=3"]


@pytest.fixture
def kinds():
    """A parser as that of `visualize`."""
    parser = argparse.ArgumentParser()
    parser.set_defaults(settings=[])
    kinds = parser.add_subparsers(dest="kind", required=True)
    add_config_arguments(kinds.add_parser("clips"))
    kinds.choices["clips"].add_argument("--output")
    kinds.add_parser("tradeoff").add_argument("--results", nargs="+")
    return parser


def test_a_sub_command_that_takes_no_settings_gets_paths_that_are_named_like_some(kinds, capsys):
    paths = ["OCTCONV.ALPHA=0,RNG_SEED=1/results.json", "OCTCONV.ALPHA=0.1/results.json"]

    args = parse_with_settings(kinds, ["tradeoff", "--results", *paths])

    assert (args.results, args.settings) == (paths, [])
    with pytest.raises(SystemExit):
        parse_with_settings(kinds, ["RNG_SEED=2", "tradeoff"])
    assert "RNG_SEED=2" in capsys.readouterr().err


def test_settings_of_a_sub_command_may_stand_before_it_and_are_no_value_of_its_options(kinds):
    words = "RNG_SEED 2 clips --output TEST.X=1/pictures --cfg a.yaml OCTCONV.ALPHA=.1"

    args = parse_with_settings(kinds, words.split())

    assert (args.kind, args.output, args.cfg) == ("clips", "TEST.X=1/pictures", "a.yaml")
    assert args.settings == ["RNG_SEED", "2", "OCTCONV.ALPHA=.1"]
    with pytest.raises(SystemExit):
        parse_with_settings(kinds, ["clip", "--cfg", "a.yaml"])


@pytest.fixture
def of_paths(tmp_path, monkeypatch):
    """of_paths(names of folders that are there): a parser as that of `inflate`, and of `train`."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            (tmp_path / name).mkdir()
        required, optional = argparse.ArgumentParser(), argparse.ArgumentParser()
        required.add_argument("source")
        required.add_argument("target")
        optional.add_argument("folder", nargs="?")
        for parser in (required, optional):
            add_config_arguments(parser, required=False)
        return required, optional

    return make


def test_a_path_whose_first_part_is_like_an_assignment_is_no_setting(of_paths):
    required, optional = of_paths("lr=1")

    copied = parse_with_settings(required, ["lr=1/", "lr=1/new.pth", "lr=2", "--cfg", "a.yaml"])
    trained = parse_with_settings(optional, ["lr=1", "lr=2/x"])

    assert (copied.source, copied.target, copied.settings) == ("lr=1/", "lr=1/new.pth", ["lr=2"])
    assert (trained.folder, trained.settings) == ("lr=1", ["lr=2/x"])


@pytest.mark.parametrize(
    ("word", "setting"),
    [
        ("OCTCONV.ALPHA=0,RNG_SEED=1", "OCTCONV.ALPHA 0,RNG_SEED=1"),
        ("OCTCONV.ALPHA=0,RNG_SEED=1/new.pth", "OCTCONV.ALPHA 0,RNG_SEED=1/new.pth"),
        ("DATA.2", "DATA.2=VALUE"),
    ],
)
def test_a_word_that_is_a_setting_and_a_path_is_one_only_with_more_said(of_paths, word, setting):
    required, optional = of_paths("OCTCONV.ALPHA=0,RNG_SEED=1", "DATA.2")
    both = rf"line: {word} may be a setting or a path; write \./{word} for the path, {setting} for"

    with pytest.raises(ConfigError, match=both):
        parse_with_settings(required, [word, "out.pth", "--cfg", "a.yaml"])
    with pytest.raises(ConfigError, match=both):
        parse_with_settings(optional, [word])
    assert parse_with_settings(optional, [f"./{word}"]).folder == f"./{word}"


def test_beside_a_config_a_word_is_no_folder_to_train_on(of_paths):
    """Runs of a sweep may begin in the folder that holds those of their settings."""
    _, optional = of_paths("OCTCONV.ALPHA=0")

    args = parse_with_settings(optional, ["--cfg", "a.yaml", "OCTCONV.ALPHA=0"])

    assert (args.folder, args.settings) == (None, ["OCTCONV.ALPHA=0"])


def test_a_contradiction_is_blamed_on_who_brought_it(write):
    bad, good = write(I3D + "DATA: {TRAIN_CROP_SIZE: 512}", "bad.yaml"), write(I3D, "good.yaml")

    assert problem(bad).startswith(f"{bad}: DATA.TRAIN_JITTER_SCALES starts at 256")
    assert problem(bad, "RNG_SEED=2").startswith(f"{bad}: ")
    assert problem(good, "DATA.TRAIN_CROP_SIZE=512").startswith(f"command line, over {good}: DATA.")
    with pytest.raises(ConfigError, match=r"^arguments, over .*good\.yaml: DATA\.TRAIN_JITTER"):
        load_config(good, DATA={"TRAIN_CROP_SIZE": 512})


def test_settings_come_as_python_values_too(write):
    cfg = load_config(write(I3D), OCTCONV={"ALPHA": 0.25}, **{"TRAIN.BATCH_SIZE": 8}, RNG_SEED=3)

    assert (cfg.OCTCONV.ALPHA, cfg.TRAIN.BATCH_SIZE, cfg.RNG_SEED) == (0.25, 8, 3)
    with pytest.raises(ConfigError, match=r"arguments: there is no setting OCTCONV\.ALFA; did you"):
        load_config(write(I3D), OCTCONV={"ALFA": 0.25})


@pytest.mark.parametrize("name", ["kinetics400/oct_i3d", "configs/kinetics400/oct_i3d.yaml"])
def test_an_installed_config_is_found_by_its_name_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    cfg = load_config(name)

    assert (cfg.MODEL.ARCH, cfg.OCTCONV.ALPHA) == ("i3d", 0.1)
    assert cfg.OUTPUT_DIR == "runs/kinetics400/oct_i3d"


def test_a_file_comes_before_an_installed_config_and_may_build_on_one(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kinetics400").mkdir()
    write("_BASE_: kinetics400/oct_i3d\nRNG_SEED: 7", "kinetics400/i3d.yaml")

    cfg = load_config("kinetics400/i3d.yaml")

    assert (cfg.RNG_SEED, cfg.OCTCONV.ALPHA) == (7, 0.1)


def test_a_config_that_does_not_exist_is_named_with_the_nearest_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert problem("kinetics400/oct_i3") == (
        "kinetics400/oct_i3: there is no such file, nor an installed config of that name; "
        "did you mean kinetics400/oct_i3d?"
    )


def test_a_base_is_relative_to_its_file_and_overridden_by_it(write, tmp_path):
    (tmp_path / "deep").mkdir()
    write(I3D + "OCTCONV: {ALPHA: 0.5, STAGES: [2, 3]}", "base.yaml")
    path = write("_BASE_: ../base.yaml\nOCTCONV: {ALPHA: 0.1}", "deep/mine.yaml")

    cfg = load_config(path)

    assert (cfg.OCTCONV.ALPHA, cfg.OCTCONV.STAGES, cfg.MODEL.ARCH) == (0.1, [2, 3], "i3d")


def test_overrides_come_as_pairs_and_as_assignments(write):
    cfg = load_config(
        write(I3D), ["OCTCONV.ALPHA", ".25", "TRAIN.BATCH_SIZE=8", "OUTPUT_DIR", "runs/a b=c"]
    )

    assert (cfg.OCTCONV.ALPHA, cfg.TRAIN.BATCH_SIZE, cfg.OUTPUT_DIR) == (0.25, 8, "runs/a b=c")


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("SOLVER.BASE_LR=1", 1.0),
        ("SOLVER.BASE_LR=1e-3", 1e-3),
        ("SOLVER.NESTEROV=true", True),
        ("SOLVER.NESTEROV=0", False),
        ("DATA.MEAN=[0,0.5,1]", [0.0, 0.5, 1.0]),
        ("SOLVER.LRS=[1, 1e-1]", [1.0, 0.1]),
        ("DATA.PATH_PREFIX=2024", "2024"),
        ("SOLVER.CLIP_GRAD_VAL=null", 0.0),
        ("SOLVER.CLIP_GRAD_VAL=None", 0.0),
        ("SOLVER.BETAS=(0.8, 1e-1)", [0.8, 0.1]),
        ("TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN=('backbone.',)", ["backbone."]),
        ("TRAIN.CHECKPOINT_CLEAR_NAME_PATTERN=()", []),
        ("DATA.PATH_PREFIX=(a, b)", "(a, b)"),
    ],
)
def test_what_is_accepted_takes_the_type_of_the_setting(write, override, value):
    cfg = load_config(write(I3D), [override])

    section, name = override.partition("=")[0].split(".")
    assert cfg[section][name] == value
    assert type(cfg[section][name]) is type(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("OCTCONV: {ALFA: 0.1}", "there is no setting OCTCONV.ALFA; did you mean OCTCONV.ALPHA?"),
        (
            "SOLVER: {BATCH_SIZE: 8}",
            "there is no setting SOLVER.BATCH_SIZE; did you mean TRAIN.BATCH_SIZE?",
        ),
        ("octconv: {alpha: .1}", "there is no setting octconv.alpha; did you mean OCTCONV.ALPHA?"),
        ("QUUX: 1", "there is no setting QUUX; octvideo/config/defaults.py lists them all"),
        ("OCTCONV: 0.1", "OCTCONV is a section; set one of OCTCONV.ALPHA"),
        (
            "TRAIN: {BATCH_SIZE: 8.5}",
            "TRAIN.BATCH_SIZE is 8.5; it takes a whole number, such as 64",
        ),
        ("TRAIN: {BATCH_SIZE: true}", "TRAIN.BATCH_SIZE is True; it takes a whole number"),
        ("SOLVER: {BASE_LR: fast}", "SOLVER.BASE_LR is 'fast'; it takes a number, such as 0.1"),
        ("SOLVER: {BASE_LR: .nan}", "SOLVER.BASE_LR is nan; it takes a number"),
        ("SOLVER: {STEPS: [a]}", "SOLVER.STEPS is ['a']; it takes a list, such as [0.0]"),
        ("SOLVER: {LRS: [[1]]}", "SOLVER.LRS is [[1]]; it takes a list, such as [1.0]"),
        ("NONLOCAL: {LOCATION: [1, 2, 3, 4]}", "NONLOCAL.LOCATION is [1, 2, 3, 4]; it takes"),
        ("DATA: {PATH_PREFIX: 5}", "DATA.PATH_PREFIX is 5; it takes text"),
        (
            "MODEL: {ARCH: x3d}",
            "MODEL.ARCH is 'x3d'; on videos it is c2d or c2d_nopool or i3d or i3d_heavy or slow",
        ),
        (
            "SOLVER: {LR_POLICY: step}",
            "SOLVER.LR_POLICY is 'step'; it takes 'cosine' or 'steps_with_relative_lrs'",
        ),
        (
            "RESNET: {TRANS_FUNC: x3d}",
            "RESNET.TRANS_FUNC is 'x3d'; it takes 'bottleneck_transform'",
        ),
        ("TRAIN: {BATCH_SIZE: 010}", ":1: 010 is a number of base 8 or 60 in YAML; write it in"),
        ("SOLVER: {BASE_LR: 1:30}", ":1: 1:30 is a number of base 8 or 60 in YAML"),
        ("TRAIN: {BATCH_SIZE: 8, BATCH_SIZE: 9}", ":1: BATCH_SIZE is set twice; keep one"),
        ("DATA: {ON: 1}", ":1: 'ON' is read as True; put the setting's name in quotes"),
        (
            "OUTPUT_DIR: !!python/object/apply:os.system ['true']",
            ":1: could not determine a constructor",
        ),
        ("a: [", "while parsing|expected the node content"),
        ("- 1", "expected settings such as `OCTCONV:`, found list at the top"),
        ("_BASE_: mine.yaml", "_BASE_ goes in a circle"),
        ("_BASE_: {a: 1}", "_BASE_ is {'a': 1}; it takes the name of a file"),
        ("[" * 2000, "this is not YAML text"),
        (
            "_BASE_: absent.yaml",
            "absent.yaml: there is no such file, nor an installed config of that name",
        ),
    ],
)
def test_a_mistake_gets_one_line_that_names_the_file(write, text, expected):
    path = write(text)

    message = problem(path)

    assert message.startswith(str(Path(path).parent))
    assert any(part in message for part in expected.split("|"))


def test_a_python_config_is_not_run_and_the_page_of_its_settings_named(write):
    path = write("_base_ = ['../i3d.py']", "i3d.py")

    assert "is a program, and none is run; docs/from_mmaction2.md" in problem(path)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["OCTCONV.ALPHA=1"], "OCTCONV.ALPHA is 1; it lies in [0, 1)"),
        (["OCTCONV.ALPHA=-0.1"], "OCTCONV.ALPHA is -0.1; it lies in [0, 1)"),
        (
            ["OCTCONV.STAGES=[2,4]"],
            "OCTCONV.STAGES is [2, 4]; octave stages follow each other without a gap",
        ),
        (["OCTCONV.STAGES=[5,6]"], "OCTCONV.STAGES is [5, 6]; each is 2, 3, 4 or 5 (res2..res5)"),
        (
            ["DATA.TRAIN_CROP_SIZE=16"],
            "DATA.TRAIN_CROP_SIZE is 16; the network halves it five times",
        ),
        (["DATA.TRAIN_CROP_SIZE=300"], "no crop would fit"),
        (
            ["DATA.TRAIN_JITTER_SCALES=[320,256]"],
            "DATA.TRAIN_JITTER_SCALES is [320, 256]; it is [shortest, longest]",
        ),
        (["DATA.STD=[1,1]"], "DATA.STD is [1.0, 1.0]; it has one number for each"),
        (["MODEL.ARCH=slowfast", "DATA.NUM_FRAMES=12"], "use a multiple of 8"),
        (
            ["SOLVER.LR_POLICY=steps_with_relative_lrs", "SOLVER.STEPS=[0,10]", "SOLVER.LRS=[1]"],
            "SOLVER.STEPS has 2 entries and SOLVER.LRS 1",
        ),
        (
            [
                "SOLVER.LR_POLICY=steps_with_relative_lrs",
                "SOLVER.STEPS=[5,10]",
                "SOLVER.LRS=[1,.1]",
            ],
            "SOLVER.STEPS is [5.0, 10.0]; it starts at 0 and rises",
        ),
        (["SOLVER.WARMUP_EPOCHS=400"], "SOLVER.WARMUP_EPOCHS is 400, beyond MAX_EPOCH 300"),
        (["SOLVER.MOMENTUM=0"], "SOLVER.NESTEROV needs MOMENTUM above 0"),
        (["SOLVER.ACCUM_STEPS=3"], "TRAIN.BATCH_SIZE 64 is not divisible by SOLVER.ACCUM_STEPS 3"),
        (["SOLVER.ACCUM_STEPS=0"], "SOLVER.ACCUM_STEPS is 0; it is at least 1"),
        (["DATA.MULTI_LABEL=true"], "several labels per video go with bce_logit"),
        (
            [*IMAGES, "DATA.MULTI_LABEL=true", "MODEL.LOSS_FUNC=bce_logit"],
            "DATA.MULTI_LABEL is True with TRAIN.DATASET imagenet; an image has one label",
        ),
        (["MODEL.CLASS_WEIGHTS=[1,2]"], "MODEL.CLASS_WEIGHTS has 2 entries"),
        (["MODEL.NUM_CLASSES=2", "MODEL.CLASS_WEIGHTS=[0,0]"], "one of them is above 0"),
        (["DATA.PCA_NOISE=0.1"], "DATA.PCA_NOISE is 0.1 with TRAIN.DATASET video; only images"),
        (["TRAIN.COMPILE=true", "MODEL.ACT_CHECKPOINT=true"], "set one of them False"),
        (
            ["NONLOCAL.LOCATION=[[[]]]"],
            "NONLOCAL.LOCATION is [[[]]]; it has an entry for each of res2..res5",
        ),
        (["NONLOCAL.POOL=[[[1,2,2]],[[2,2,2]],[[1,2,2]],[[1,2,2]]]"], "one pool serves all stages"),
        (["NONLOCAL.POOL=[[],[],[],[[1,2,2]]]"], "a pool is [frames, height, width]"),
        (["NONLOCAL.POOL=[[[2]],[[2]],[[2]],[[2]]]"], "a pool is [frames, height, width]"),
        (["NONLOCAL.LOCATION=[[[]],[[],[1]],[[]],[[]]]"], "has the blocks of 1 pathway"),
        (
            ["DATA.TRAIN_JITTER_SCALES_RELATIVE=[0.5,2]"],
            "is [0.5, 2.0]; each is above 0 and at most 1",
        ),
        (
            ["DATA.TRAIN_JITTER_SCALES_RELATIVE=[0.5,0.2]"],
            "is [0.5, 0.2]; it is [smallest, largest]",
        ),
        (
            ["DATA.TRAIN_JITTER_ASPECT_RELATIVE=[0.75,1.3]"],
            "without DATA.TRAIN_JITTER_SCALES_RELATIVE; set both",
        ),
        (
            ["TEST.NUM_SPATIAL_CROPS=1", "DATA.TEST_CROP_SIZE=288"],
            "lower DATA.TEST_CROP_SIZE",
        ),
        (["DATA.TEST_SHORT_SIDE=224"], "below DATA.TEST_CROP_SIZE 256; no crop would fit"),
        (
            ["TRAIN.DATASET=imagenet", "TEST.DATASET=imagenet", "DATA.TEST_SHORT_SIDE=256"],
            "that of images is DATA.TRAIN_JITTER_SCALES[0]: leave it 0",
        ),
        (["MIXUP.SWITCH_PROB=1.5"], "MIXUP.SWITCH_PROB is 1.5; it lies in [0, 1]"),
        (
            ["DATA.MULTI_LABEL=true", "MIXUP.ENABLE=true"],
            "several labels per video are mixed but not smoothed",
        ),
        (["TEST.PRECISION=bf16"], "TEST.PRECISION is bf16 without TEST.OPTIMIZE"),
        (["TEST.PRECISION=fp16"], "TEST.PRECISION is 'fp16'; it takes"),
        (["MODEL.HEAD_ACT=none"], "MODEL.HEAD_ACT is 'none'; it takes"),
        (
            ["AUG.ENABLE=true"],
            "AUG.ENABLE is True; it takes False; RandAugment and erasing are not",
        ),
        (["SOLVER.LARS_ON=true"], "SOLVER.LARS_ON is True; it takes False; leave it out: nothing"),
        (["TRAIN.DATASET=ssv2"], "it takes 'video' or 'imagenet' or 'cifar10'; video reads lists"),
        (["MODEL.MODEL_NAME=ContrastiveModel"], "MODEL.ARCH with RESNET.DEPTH chooses the network"),
        (["MODEL.MODEL_NAME=ResNet_nopool"], "only a C2D is built without its pool"),
        (["MODEL.MODEL_NAME=SlowFast"], "SlowFast with MODEL.ARCH i3d, which is another network"),
        (["MODEL.MODEL_NAME=PTVX3D"], "PTVX3D with MODEL.ARCH i3d, which is another network"),
        (
            ["MODEL.MODEL_NAME=ResNet", "MODEL.ARCH=slowfast"],
            "ResNet with MODEL.ARCH slowfast, which is another network",
        ),
        (
            ["MODEL.MODEL_NAME=PTVResNet", "MODEL.ARCH=ptv:csn", "RESNET.DEPTH=101"],
            "PTVResNet with MODEL.ARCH ptv:csn, which is another network",
        ),
        (["SOLVER.BETAS=(0.9"], "SOLVER.BETAS is '(0.9'; it takes a list"),
        (
            ["RESNET.NUM_BLOCK_TEMP_KERNEL=[[3],[4,4,4],[6],[3]]"],
            "one number per pathway for each stage",
        ),
        (["NONLOCAL.GROUP=[[1],[2],[1],[1]]"], "attention over groups of frames is not built"),
        (["MODEL.DROPOUT_RATE=1"], "MODEL.DROPOUT_RATE is 1; it lies in [0, 1)"),
    ],
)
def test_a_contradiction_stops_before_anything_is_built(write, overrides, expected):
    message = problem(write(I3D), *overrides)

    assert expected in message


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["TRAIN.BATCH_SIZE=010"],
            "command line: TRAIN.BATCH_SIZE is '010'; it takes a whole number",
        ),
        (["SOLVER.BASE_LR=1:30"], "command line: SOLVER.BASE_LR is '1:30'; it takes a number"),
        (
            ["OCTCONV.ALFA", "1"],
            "command line: there is no setting OCTCONV.ALFA; did you mean OCTCONV.ALPHA?",
        ),
        (["OCTCONV.ALPHA"], "command line: OCTCONV.ALPHA has no value; write OCTCONV.ALPHA VALUE"),
        (["--alpha", "1"], "command line: '--alpha' is not a setting"),
        (["OCTCONV.ALPHA="], "command line: OCTCONV.ALPHA has no value; write OCTCONV.ALPHA VALUE"),
        (["DATA.MEAN= "], "command line: DATA.MEAN has no value; write DATA.MEAN VALUE"),
        (["OCTCONV.ALFA="], "command line: there is no setting OCTCONV.ALFA; did you mean"),
    ],
)
def test_a_mistake_on_the_command_line_is_named_as_such(write, overrides, expected):
    assert problem(write(I3D), *overrides).startswith(expected)


def test_sections_of_other_tasks_are_ignored_with_one_line(write, caplog):
    path = write(
        I3D + "AVA: {FRAME_DIR: x, FPS: 30}\nMVIT: {DEPTH: 16}\nRESNET: {INPLACE_RELU: true}"
    )

    load_config(path)

    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"{path}: without effect here, ignored: AVA, MVIT, RESNET.INPLACE_RELU"
    ]


def test_what_a_checkpoint_holds_reads_back(write):
    cfg = load_config(write(I3D + "OCTCONV: {ALPHA: 0.2}"))

    again = config_from_text(cfg.dump(), "checkpoint_epoch_00001.pyth")

    assert again == cfg


def test_each_file_has_its_own_output_folder(write, tmp_path):
    (tmp_path / "kinetics400").mkdir()
    write(I3D, "kinetics400/i3d.yaml")
    path = write("_BASE_: i3d.yaml", "kinetics400/oct_i3d.yaml")

    assert load_config(path).OUTPUT_DIR == "runs/kinetics400/oct_i3d"
    assert load_config(path, ["OUTPUT_DIR=elsewhere"]).OUTPUT_DIR == "elsewhere"
    assert load_config(path, ["OUTPUT_DIR="]).OUTPUT_DIR == "runs/kinetics400/oct_i3d"
    assert load_config(path, OUTPUT_DIR=None).OUTPUT_DIR == "runs/kinetics400/oct_i3d"


def test_a_file_of_a_folder_above_has_its_output_under_runs(write, tmp_path, monkeypatch):
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b" / "c")
    for name in ("mine.yaml", "a/mine.yaml", "a/b/mine.yaml", "a/b/c/mine.yaml"):
        write(I3D, name)

    paths = ("mine.yaml", "../mine.yaml", "../../mine.yaml")
    assert [load_config(path).OUTPUT_DIR for path in paths] == [
        "runs/mine",
        "runs/b/mine",
        "runs/a/mine",
    ]


def test_settings_cannot_be_changed_after_loading(write):
    cfg = load_config(write(I3D))

    with pytest.raises(AttributeError):
        cfg.OCTCONV.ALPHA = 0.5


@pytest.mark.parametrize(
    ("text", "value"), [("auto", "auto"), ("true", "true"), ("False", "false")]
)
def test_a_choice_that_may_be_automatic_takes_yaml_s_booleans(write, text, value):
    path = write(f"MODEL: {{ARCH: i3d, COMPUTE_IN_2D: {text}}}")

    assert value == load_config(path).MODEL.COMPUTE_IN_2D
    assert (
        value == load_config(path, [f"MODEL.STEM_SPACE_TO_DEPTH={text}"]).MODEL.STEM_SPACE_TO_DEPTH
    )


def test_another_value_of_an_automatic_choice_is_refused(write):
    assert "'auto' or 'true' or 'false'" in problem(write("MODEL: {COMPUTE_IN_2D: yes please}"))


@pytest.mark.parametrize(
    ("config", "word", "says"),
    [
        ("kinetics400/i3d_in1k", "SOLVER.MAX_EPOCH=10", "SOLVER.MAX_EPOCH is 10, and with SOLVER"),
        ("kinetics400/i3d_in1k", "SOLVER.STEPS=[0,5]", "300000 the schedule counts iterations"),
        ("kinetics400/i3d", "SOLVER.STEP_ITERS=[0,5]", "MAX_ITER 0 the schedule counts epochs"),
        ("kinetics400/i3d_in1k", "SOLVER.STEP_ITERS=[0,5,9]", ""),
        ("kinetics400/i3d", "SOLVER.MAX_EPOCH=40", ""),
    ],
)
def test_a_length_in_a_unit_that_the_schedule_does_not_count_is_refused(config, word, says):
    with pytest.raises(ConfigError, match=says) if says else nullcontext():
        load_config(config, [word])


@pytest.mark.parametrize(
    ("config", "word", "says"),
    [
        ("cifar10/resnet20", "RESNET.WIDTH_PER_GROUP=64", "resnet20_cifar has width_per_group=16"),
        ("cifar10/resnet20", "RESNET.STEM=7x7", "by its name resnet20_cifar has stem='3x3'"),
        ("kinetics400/i3d_nln", "NONLOCAL.LOCATION=[[[]],[[]],[[]],[[]]]", "i3d_nln has nonlocal"),
        ("cifar10/resnet20", "RESNET.WIDTH_PER_GROUP=16", ""),
        ("kinetics400/i3d", "RESNET.WIDTH_PER_GROUP=64", ""),
    ],
)
def test_a_default_that_is_said_is_no_silence_where_the_networks_name_says_otherwise(
    config, word, says
):
    words = ["MODEL.ARCH=i3d_nln"] if "nln" in config else []

    with pytest.raises(ConfigError, match=says) if says else nullcontext():
        load_config(config, [*words, word])
