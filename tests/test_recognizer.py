"""`octvideo.load`: a checkpoint that names what happens in a video, however the video comes."""

import copy
import io
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

import octvideo
import octvideo.download
import octvideo.recognizer
import octvideo.recognizer.network
from octvideo.data.reading import DecodeError
from octvideo.data.sampling import Timing
from octvideo.data.video.encode import write_video
from octvideo.engine.prediction.windows import sliding_clips
from octvideo.errors import CheckpointError, ConfigError, OctvideoError


@pytest.fixture(scope="module")
def recognizer(tiny_checkpoint: Path) -> octvideo.recognizer.Recognizer:
    return octvideo.load(tiny_checkpoint, device="cpu")


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """30 frames whose left half brightens, so that time and place can be told apart."""
    ramp = np.zeros((30, 40, 56, 3), np.uint8)
    ramp[:, :, :28] = (np.arange(30) * 8)[:, None, None, None]
    return ramp


@pytest.fixture(scope="module")
def video(frames: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "a clip.mp4"
    write_video(path, frames, fps=30, crf=1)
    return path


def test_a_prediction_names_the_most_probable_classes_first(recognizer, video):
    found = recognizer.predict(video, views="2x3", top_k=4)

    assert len(found) == 4
    assert recognizer.predict(video, views="2x3", top_k=1) == found[:1]
    assert {p.name for p in found} < set("abcdef")
    assert [p.probability for p in found] == sorted((p.probability for p in found), reverse=True)


def test_probabilities_of_all_classes_sum_to_one(recognizer, video):
    assert sum(p.probability for p in recognizer.predict(video, top_k=6)) == pytest.approx(
        1, abs=1e-5
    )


def test_a_file_an_array_and_a_stream_of_frames_are_one_video(recognizer, video, frames):
    of_file = recognizer.scores(video)
    of_array = recognizer.scores(frames, fps=30)
    of_stream = recognizer.scores(iter(frames), fps=30)

    np.testing.assert_array_equal(of_array, of_stream)
    np.testing.assert_allclose(of_file, of_array, atol=2e-3)  # H.264 is not lossless


@pytest.mark.slow
def test_an_optimized_recognizer_gives_the_same_scores_for_any_number_of_views(
    tiny_checkpoint, frames
):
    recognizer = octvideo.load(tiny_checkpoint, device="cpu")
    plain = [recognizer.scores(frames, fps=30, views=views) for views in ("1x1", "3x3")]

    recognizer.optimize(engine="openvino").optimize(engine="openvino")

    for views, expected in zip(("1x1", "3x3"), plain, strict=True):
        np.testing.assert_allclose(
            recognizer.scores(frames, fps=30, views=views), expected, rtol=1e-3
        )


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({}, "calibration is for precision int8, and precision is fp32"),
        ({"precision": "auto"}, "calibration is for precision int8, and precision is auto"),
        ({"precision": "int8", "engine": "torch"}, "only engine openvino has it"),
    ],
)
def test_a_calibration_that_cannot_be_used_is_refused_before_a_video_is_decoded(
    recognizer, how, message
):
    with pytest.raises(ConfigError, match=message):
        recognizer.optimize(calibration=["there is no such file.mp4"], **how)


def test_a_fingerprint_of_int8_is_of_its_calibration(recognizer, frames, monkeypatch):
    network = octvideo.recognizer.network
    lower = SimpleNamespace(precision="int8")
    monkeypatch.setattr(network, "optimize", lambda *given, **how: lower)
    monkeypatch.setattr(network, "choose", lambda *given: ("openvino", "int8"))
    recognizer = copy.copy(recognizer)
    plain = recognizer.fingerprint()
    one, other = ([frames[k : k + 9] for k in range(start, start + 8)] for start in (0, 8))

    def of(calibration):
        return recognizer.optimize(precision="int8", calibration=calibration).fingerprint()

    assert of(one) == of(one)
    assert len({plain, of(one), of(other)}) == 3


def test_the_score_of_two_clips_is_the_mean_of_theirs(recognizer, frames):
    clips = recognizer.view_spec("2x3").clips(Timing(len(frames), 30.0))

    alone = [
        recognizer.model.window_scores(_views(recognizer, frames[clip])).mean(0) for clip in clips
    ]

    expected = torch.stack(alone).mean(0).detach()
    np.testing.assert_allclose(recognizer.scores(frames, views="2x3", fps=30), expected, atol=1e-5)


def _views(recognizer: octvideo.recognizer.Recognizer, clip: np.ndarray) -> torch.Tensor:
    """Three crops of 32 x 32 along the 44 pixels of a 40 x 56 clip at short side 32, computed by
    hand."""
    planes = torch.from_numpy(clip).permute(3, 0, 1, 2)
    resized = torch.nn.functional.interpolate(
        planes.float(), (32, 44), mode="bilinear", align_corners=False
    )
    crops = torch.stack([resized[..., left : left + 32] for left in (0, 6, 12)]).round()
    return (crops / 255 - 0.45) / 0.225


def test_several_labels_have_a_probability_each(tiny_checkpoint, frames, tmp_path):
    state = torch.load(tiny_checkpoint, weights_only=True)
    state["meta"]["multi_label"] = True
    torch.save(state, tmp_path / "several.pyth")

    recognizer = octvideo.load(tmp_path / "several.pyth", device="cpu")

    logits = recognizer.model(recognizer.clip(frames)[1])[0].detach()
    np.testing.assert_allclose(recognizer.scores(frames, views="1x1"), logits.sigmoid(), atol=1e-5)


def test_features_are_what_the_classifier_sees(recognizer, frames):
    features = recognizer.features(frames, views="1x1")

    logits = recognizer.model.head.fc(torch.from_numpy(features))
    np.testing.assert_allclose(
        logits.softmax(0).detach(), recognizer.scores(frames, views="1x1"), atol=1e-5
    )


def test_a_timeline_has_a_window_per_stride(recognizer, video):
    timeline = recognizer.timeline(video, window_seconds=0.5, stride_seconds=0.25)

    np.testing.assert_allclose(timeline.starts, np.arange(len(timeline.starts)) * 8 / 30)
    np.testing.assert_allclose(timeline.ends - timeline.starts, 0.5)
    assert timeline.scores.shape == (2, 6)
    np.testing.assert_allclose(timeline.scores.sum(1), 1, atol=1e-5)
    assert timeline.top(0, k=2)[0].probability == timeline.scores[0].max()
    assert timeline.at(0.0) == 0
    assert timeline.at(99.0) == len(timeline.starts) - 1


def test_a_timeline_tells_when_frames_are_shown(recognizer, frames, tmp_path):
    """Two seconds at ten frames a second, then one frame every second."""
    times = [k / 10 for k in range(20)] + [2.0 + k for k in range(11)]
    many = np.concatenate([frames, frames])[:30]
    write_video(tmp_path / "vfr.mp4", many, 3, times=times)

    timeline = recognizer.timeline(tmp_path / "vfr.mp4", window_seconds=2, stride_seconds=2)
    given = recognizer.timeline(many, window_seconds=2, stride_seconds=2, fps=2.5, times=times[:-1])

    assert timeline.starts.tolist() == pytest.approx([times[5 * k] for k in range(6)], abs=1e-3)
    assert timeline.ends[:-1].tolist() == pytest.approx(timeline.starts[1:].tolist())
    assert timeline.ends[-1] == pytest.approx(12)  # though frames are 0.4 s apart in the mean
    np.testing.assert_allclose(given.starts, timeline.starts, atol=1e-3)


def test_a_video_that_changes_its_size_has_a_timeline(recognizer, frames, tmp_path):
    parts = []
    for k, size in enumerate(((48, 64), (64, 48))):
        with av.open(str(tmp_path / f"{k}.ts"), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            (stream.height, stream.width), stream.pix_fmt = size, "yuv420p"
            for image in frames:
                frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(size[1], size[0])
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        parts.append((tmp_path / f"{k}.ts").read_bytes())
    (tmp_path / "joined.ts").write_bytes(b"".join(parts))

    timeline = recognizer.timeline(tmp_path / "joined.ts", window_seconds=0.5, stride_seconds=0.5)

    last = 2 * len(frames) // 15
    assert timeline.ends.tolist() == pytest.approx([(k + 1) / 2 for k in range(last)], abs=1e-2)


def test_a_video_shorter_than_a_window_has_one_window(recognizer, frames):
    lengths = {"window_seconds": 2, "fps": 30}
    timeline = recognizer.timeline(frames[:5], **lengths)
    (window,) = recognizer.stream(frames[:5], **lengths)

    assert timeline.starts.tolist() == [0]
    assert timeline.ends.tolist() == [window.end] == [pytest.approx(5 / 30)]
    assert recognizer.features(frames[:5], **lengths).ends == timeline.ends


def test_a_frame_without_its_time_is_refused(recognizer, frames):
    whole = recognizer.timeline(frames[:3], window_seconds=0.1, fps=30, times=[0, 0.5, 1])

    assert whole.ends.tolist() == [pytest.approx(1 + 1 / 30)]
    with pytest.raises(ConfigError, match="got 2 times for more frames"):
        recognizer.timeline(frames[:3], window_seconds=0.1, fps=30, times=[0, 0.5])


def test_an_endless_stream_is_held_only_as_far_as_its_windows_reach():
    alive, most = set(), 0

    class Counted:
        def __init__(self, number: int) -> None:
            self.number = number
            alive.add(number)

        def __del__(self) -> None:
            alive.discard(self.number)

    def stream() -> Iterator[Counted]:
        nonlocal most
        for number in range(2000):
            most = max(most, len(alive))
            yield Counted(number)

    starts = [start for start, _ in sliding_clips(stream(), window=60, step=30, num_frames=8)]

    assert starts == list(range(0, 1941, 30))
    assert most <= 2 * 8 + 12


@pytest.mark.parametrize(("window", "step", "count"), [(7, 3, 3), (4, 10, 4), (5, 5, 1), (3, 1, 8)])
def test_sliding_clips_hold_the_frames_of_their_window(window, step, count):
    clips = dict(sliding_clips(range(40), window=window, step=step, num_frames=count))

    assert sorted(clips) == list(range(0, 40 - window + 1, step))
    for start, clip in clips.items():
        assert clip == [start + k * (window - 1) // max(count - 1, 1) for k in range(count)]


@pytest.mark.parametrize("step", [1, 15, 30, 60, 90])
def test_a_stream_shorter_than_a_window_repeats_its_last_frame_at_every_step(step):
    clips = list(sliding_clips(range(40), window=60, step=step, num_frames=8))

    assert clips == [(0, [0, 8, 16, 25, 33, 39, 39, 39])]


def test_a_stream_without_frames_has_no_clips():
    assert list(sliding_clips([], window=60, step=15, num_frames=8)) == []


@pytest.mark.parametrize("views", ["10", "x3", "ax3", "10x", "0x1", "1x4"])
def test_views_of_another_form_are_refused(recognizer, frames, views):
    with pytest.raises(ConfigError):
        recognizer.predict(frames, views=views)


def test_bytes_open_files_and_addresses_are_read_as_the_file(
    recognizer, video, tmp_path, monkeypatch
):
    expected = recognizer.scores(video, views="1x1")
    monkeypatch.setenv("OCTVIDEO_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        octvideo.download, "_append", lambda url, part: part.write_bytes(video.read_bytes())
    )

    with video.open("rb") as file:
        of_file = recognizer.scores(file, views="1x1")

    np.testing.assert_array_equal(of_file, expected)
    np.testing.assert_array_equal(recognizer.scores(video.read_bytes(), views="1x1"), expected)
    np.testing.assert_array_equal(
        recognizer.scores("https://host/a/clip.mp4?x=1", views="1x1"), expected
    )
    assert [p.name[12:] for p in (tmp_path / "cache" / "files").glob("*.mp4")] == ["-clip.mp4"]


def test_a_list_of_videos_gives_a_list_of_results(recognizer, video, frames):
    one = recognizer.scores(video, views="1x1")

    assert (
        recognizer.predict([video, str(video)], views="1x1", top_k=2)
        == [recognizer.predict(video, views="1x1", top_k=2)] * 2
    )
    np.testing.assert_array_equal(recognizer.scores((video,), views="1x1"), one[None])
    assert recognizer.features([frames, frames[:9]], views="1x1").shape[0] == 2


@pytest.mark.parametrize("form", ["channels last", "channels first", "frames"])
def test_tensors_are_read_as_arrays(recognizer, frames, form):
    tensor = torch.from_numpy(frames)
    given = {
        "channels last": tensor,
        "channels first": tensor.permute(0, 3, 1, 2),
        "frames": iter(tensor),
    }[form]

    np.testing.assert_array_equal(
        recognizer.scores(given, views="1x1"), recognizer.scores(frames, views="1x1")
    )


def test_a_timeline_is_made_of_bytes_and_tensors(recognizer, video, frames):
    of_file = recognizer.timeline(video, window_seconds=0.5, stride_seconds=0.25)
    of_bytes = recognizer.timeline(video.read_bytes(), window_seconds=0.5, stride_seconds=0.25)
    windows = {"window_seconds": 0.5, "stride_seconds": 0.25, "fps": 30}

    np.testing.assert_array_equal(of_bytes.scores, of_file.scores)
    np.testing.assert_array_equal(
        recognizer.timeline(torch.from_numpy(frames).permute(0, 3, 1, 2), **windows).scores,
        recognizer.timeline(frames, **windows).scores,
    )


def test_the_repr_names_network_classes_and_input(recognizer):
    shown = repr(recognizer)

    assert re.fullmatch(
        r"Recognizer\(i3d_r26, alpha 0\.25; 6 classes: a, b, \.\.\.; 4 frames x stride \d at 30"
        r" fps, "
        r"32 x 32 pixels; on cpu\)",
        shown,
    ), shown


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((4, 8, 8, 3), np.float32), r"float32 \(4, 8, 8, 3\); a video is uint8"),
        (np.zeros((8, 8, 3), np.uint8), r"uint8 \(T, H, W, 3\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"uint8 \(T, H, W, 3\)"),
        (torch.zeros(4, 3, 8, 8), r"float32 \(4, 8, 8, 3\)"),
        (torch.zeros(4, 3, 8, 8, dtype=torch.bfloat16), r"uint8 \(T, H, W, 3\)"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], "have one size"),
        ([np.zeros((8, 8), np.uint8)], r"uint8 \(T, H, W, 3\)"),
        ([], "no frames"),
        (iter(()), "no frames"),
        ([1, 2], r"uint8 \(T, H, W, 3\)"),
        (7, "got a int; a video is a path"),
        (None, "got a NoneType; a video is a path"),
        ({"video": "a.mp4"}, "got a dict; a video is a path"),
        (io.StringIO("text"), "open it with mode 'rb'"),
        (b"", "the bytes given: there are none"),
        (b"no video", "the bytes given: "),
        ("", "the path of the video is empty"),
        (["none.mp4"], r"none\.mp4"),
        ("nowhere://a.mp4", "register a handler"),
    ],
)
@pytest.mark.parametrize("ask", ["predict", "timeline"])
def test_what_is_no_video_is_refused_in_one_line(recognizer, source, message, ask):
    if ask == "timeline" and isinstance(source, list):
        source = iter(source)  # which may change its size, and is no list of videos
        if message in ("have one size", r"none\.mp4"):
            return

    with pytest.raises(OctvideoError, match=message) as caught:
        getattr(recognizer, ask)(source)

    assert "\n" not in str(caught.value)
    assert "octvideo_" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k is 0"),
        ({"top_k": 2.0}, "top_k is 2.0"),
        ({"fps": 0}, "fps is 0"),
        ({"fps": float("nan")}, "fps is nan"),
        ({"views": 10}, "views are 10"),
    ],
)
def test_options_of_another_form_are_refused(recognizer, frames, options, message):
    with pytest.raises(ConfigError, match=message):
        recognizer.predict(frames, **options)


def test_a_rate_beside_a_file_is_refused(recognizer, video):
    with pytest.raises(ConfigError, match="leave fps out"):
        recognizer.predict(video, fps=30)
    with pytest.raises(ConfigError, match="leave times out"):
        recognizer.timeline(video, times=[0.0])
    with pytest.raises(ConfigError, match="one video"):
        recognizer.timeline([video])


def test_a_device_that_is_not_there_is_named(tiny_checkpoint):
    with pytest.raises(ConfigError, match="device='banana'"):
        octvideo.load(tiny_checkpoint, device="banana")


def test_a_file_that_is_no_video_is_refused_by_name(recognizer, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")

    with pytest.raises(DecodeError, match=r"text\.mp4"):
        recognizer.predict(tmp_path / "text.mp4")


@pytest.mark.parametrize("kind", ["array", "file", "bytes"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda network, source: network.predict(source),
        lambda network, source: network.timeline(source),
        lambda network, source: network.features(source, window_seconds=1),
        lambda network, source: next(network.stream(source)),
    ],
    ids=["predict", "timeline", "features", "stream"],
)
def test_a_picture_too_narrow_to_resize_is_refused_by_name(recognizer, tmp_path, ask, kind):
    frames = np.zeros((4, 16, 320, 3), np.uint8)
    path = tmp_path / "line.mp4"
    write_video(path, frames, fps=30)
    source = {"array": frames, "file": path, "bytes": path.read_bytes()}[kind]
    name = {"array": "the frames given", "file": str(path), "bytes": "the bytes given"}[kind]

    with pytest.raises(DecodeError) as caught:
        ask(recognizer, source)

    said = "320 x 16 pixels: one side is over 16 times the other"
    assert str(caught.value) == f"{name}: {said}"


def test_a_picture_too_narrow_to_resize_is_refused_by_a_network_that_is_given_it(recognizer):
    with pytest.raises(DecodeError, match="40 x 2 pixels"):
        recognizer.center_crop(np.zeros((2, 40, 3), np.uint8))


def test_weights_without_their_assumptions_are_refused(tmp_path):
    torch.save({"model_state": {}}, tmp_path / "bare.pyth")

    with pytest.raises(CheckpointError, match="not the classes and the input"):
        octvideo.load(tmp_path / "bare.pyth")


def test_a_checkpoint_that_does_not_say_all_of_its_input_is_refused(tiny_checkpoint, tmp_path):
    content = torch.load(tiny_checkpoint, weights_only=True)
    del content["meta"]["preprocessing"]["short_side"]
    torch.save(content, tmp_path / "part.pyth")

    with pytest.raises(CheckpointError, match=r"part\.pyth: does not say short_side of its input"):
        octvideo.load(tmp_path / "part.pyth")


def test_a_missing_checkpoint_is_refused_by_name(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pyth"):
        octvideo.load(tmp_path / "none.pyth")


def bare_of(tiny_checkpoint, path, **changes):
    """The checkpoint with other entries of its meta."""
    content = torch.load(tiny_checkpoint, weights_only=True)
    content["meta"] |= changes
    torch.save(content, path)
    return path


@pytest.mark.parametrize("argument", [{"classes": list("uvwxyz")}, {"input": "32x2"}])
def test_what_a_checkpoint_says_itself_is_not_taken_from_the_caller(tiny_checkpoint, argument):
    (name,) = argument

    with pytest.raises(ConfigError, match=rf"best\.pyth: says its {name} itself; leave {name} out"):
        octvideo.load(tiny_checkpoint, **argument)


def test_a_network_without_names_takes_those_of_the_caller(tiny_checkpoint, tmp_path):
    path = bare_of(tiny_checkpoint, tmp_path / "inflated.pyth", class_names=[])

    with pytest.raises(CheckpointError, match=r"octvideo\.load\(file, classes='kinetics400'\)"):
        octvideo.load(path)
    with pytest.raises(CheckpointError, match="classifies 6 classes; 2 names are given"):
        octvideo.load(path, classes=["a", "b"])
    recognizer = octvideo.load(path, classes=list("uvwxyz"), device="cpu")

    assert recognizer.class_names == list("uvwxyz")
    assert recognizer.num_frames == 4


def test_a_network_without_an_input_takes_that_of_the_caller(tiny_checkpoint, tmp_path):
    path = bare_of(tiny_checkpoint, tmp_path / "bare.pyth", preprocessing={})

    with pytest.raises(CheckpointError, match=r"octvideo\.load\(file, input='8x8'\)"):
        octvideo.load(path)

    assert octvideo.load(path, input="8x2", device="cpu").num_frames == 8


def test_an_image_network_is_told_how_it_becomes_one_of_videos(tmp_path):
    model = octvideo.create_model("resnet18", width_per_group=8, num_classes=2)
    torch.save(
        {"model_state": model.state_dict(), "meta": {"model": model.config}}, tmp_path / "w.pyth"
    )

    with pytest.raises(CheckpointError, match="`octvideo inflate` makes a video network of it"):
        octvideo.load(tmp_path / "w.pyth", classes="kinetics400", input="8x8")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"classes": ["a"]}, "model.onnx: says its classes itself; leave classes out"),
        ({"input": "8x8"}, "model.onnx: says its input itself; leave input out"),
        ({"device": "meta"}, "model.onnx: an exported network runs on the CPU, not on meta"),
        ({"device": "banana"}, "device='banana': cannot be used here"),
    ],
)
def test_an_exported_network_takes_no_argument_that_it_would_ignore(argument, message):
    with pytest.raises(ConfigError, match=message):
        octvideo.load("model.onnx", **argument)
