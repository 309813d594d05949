"""The official files, which anybody can download, become video networks with the same features."""

from pathlib import Path

import oracles
import pytest
from still_clip import FULL_FRAMES, error_on_a_still_clip

from octvideo import create_model
from octvideo.errors import CheckpointError
from octvideo.weights import load_official
from octvideo.weights.convert import convert_weights
from octvideo.weights.image_weights import read_image_weights
from octvideo.weights.inflate import inflate


def check(name: str, path: Path, **options: object) -> None:
    image, image_options = oracles.ALL[name]
    model_2d = create_model(image, **image_options).eval()
    load_official(model_2d, path)
    weights = read_image_weights(convert_weights(path).checkpoint())
    depth = image.removeprefix("preact_resnet")
    for family, num_frames, frames in (("c2d", 2, slice(None)), ("i3d", 40, FULL_FRAMES)):
        alpha = image_options.get("alpha", 0.0)
        model_3d = create_model(
            f"{family}_r{depth}", alpha=alpha, num_classes=6, block="preact", **options
        )

        report = inflate(weights.state, model_3d, weights.assumes)

        assert report.is_exact
        assert error_on_a_still_clip(model_2d, model_3d, num_frames, frames) < 1e-5


def test_an_official_oct_resnet26_gives_a_clip_the_features_of_its_image(tmp_path: Path) -> None:
    path = tmp_path / "a02_resnet-26_alpha-0.250-0000.params"
    oracles.write_file("resnet26_v2_a0250", path)

    check("resnet26_v2_a0250", path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [("resnet50_v2_a0500", {}), ("resnet50_v2_vanilla", {"downsample": "stride"})],
)
def test_an_official_resnet50_gives_a_clip_the_features_of_its_image(
    name: str, options: dict, tmp_path: Path, shared: Path
) -> None:
    oracles.write_file(name, tmp_path / "net.params", folder=shared / "oracles" / "nets")

    check(name, tmp_path / "net.params", **options)


def test_what_an_official_file_assumes_is_carried_over(tmp_path: Path) -> None:
    oracles.write_file("resnet26_v2_a0250", tmp_path / "net.params")

    weights = read_image_weights(convert_weights(tmp_path / "net.params").checkpoint())

    assert weights.assumes.bn_eps == 1e-4
    assert weights.assumes.downsample == "pool"
    with pytest.raises(CheckpointError, match=r"set DATA.MEAN \[0.4863, 0.4588, 0.4078\]"):
        weights.assumes.check_input((0.45,) * 3, (0.225,) * 3, False)
    with pytest.raises(CheckpointError, match=r"set OCTCONV.DOWNSAMPLE pool"):
        inflate(
            weights.state,
            create_model("c2d_r26", alpha=0.25, block="preact", downsample="stride"),
            weights.assumes,
        )
