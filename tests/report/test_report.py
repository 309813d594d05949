import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest

from octvideo.engine.evaluation.frame_order import ORDERS, summarize_orders
from octvideo.engine.evaluation.results import Evaluation, summarize, write_results
from octvideo.report import write_report
from octvideo.report.figures import training_charts

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    " --disable-background-networking --disable-component-update --disable-sync --hide-scrollbars"
    " --virtual-time-budget=3000"
)

# Appended to a copy of the page: tells the page around it, as JSON, what the browser made of it.
PROBE = """<script>addEventListener("load", () => parent.postMessage(JSON.stringify({
  pictures: [...document.images].map((image) => image.complete && image.naturalWidth > 0),
  charts: [...document.querySelectorAll("svg")].map((svg) => svg.getBoundingClientRect().width > 50),
  fetched: performance.getEntriesByType("resource").map((entry) => entry.name).filter((name) => !/^data:/.test(name)),
  width: innerWidth,
  wider: document.documentElement.scrollWidth - document.documentElement.clientWidth,
}), "*"));</script>"""

# Chromium has no window narrower than 500 pixels, but a frame may be.
AROUND = """<pre></pre><script>addEventListener("message", (event) => {{
  document.querySelector("pre").textContent = event.data;
}});</script><iframe src="{page}" style="border: 0; width: {width}px; height: 900px"></iframe>"""


def finished_evaluation(
    folder, num_classes, *, num_videos=40, unread=(), multi_label=False, labeled=True
):
    """The files of an evaluation with random scores; class 0 has a name that is hostile to HTML."""
    generator = np.random.default_rng(0)
    scores = generator.dirichlet(np.ones(num_classes), num_videos).astype(np.float32)
    scores[list(unread)] = np.nan
    names = ["<b>&\"'</b>", *(f"class number {i}" for i in range(1, num_classes))]
    evaluation = Evaluation(
        paths=[f"videos/{i}.mp4" for i in range(num_videos)],
        labels=[(i % num_classes,) if labeled else () for i in range(num_videos)],
        scores={"1x1": scores[::-1], "10x1": scores, "10x3": scores},
        problems=dict.fromkeys(unread, "moov atom not found"),
        multi_label=multi_label,
    )
    write_results(
        folder, evaluation, summarize(evaluation, names, {"views": "10x3", "view_chunk": 10})
    )


def film(index):
    return np.full((8, 64, 64, 3), 6 * index, np.uint8)


def text_of(folder, **options):
    return write_report(folder, film=film, **options).read_text(encoding="utf-8")


def log_training(folder):
    records = [
        {"_type": "train_iter", "epoch": 1, "step": step, "loss": 2 / step, "lr": 0.1}
        for step in range(1, 9)
    ]
    records += [{"_type": "val_epoch", "epoch": 1, "step": 8, "top1_err": 40.0}, {"_type": "other"}]
    (folder / "metrics.jsonl").write_text(
        "\n".join(map(json.dumps, records)) + '\n{"_type": "train_it'
    )


def test_the_validation_of_several_labels_has_its_curve(tmp_path):
    records = [{"_type": "val_epoch", "epoch": i, "step": 8 * i, "map_err": 9 - i} for i in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, records)))

    (chart,) = training_charts(tmp_path / "metrics.jsonl")

    assert "100 % - mAP" in chart
    assert "validation <b>7 %</b>" in chart


def test_headline_shows_the_interval_and_what_could_not_be_read(tmp_path):
    finished_evaluation(tmp_path, 6, unread=(3, 7))

    page = text_of(tmp_path)

    summary = json.loads((tmp_path / "results.json").read_text())
    low, high = summary["top1_interval"]
    assert f"{summary['top1_acc']:.1f} %" in page
    assert f"{low:.1f} to {high:.1f}" in page
    assert "2 of 40 videos could not be read.</b> They count as wrong." in page
    assert "moov atom not found" in page


def change_results(folder, **changes):
    results = folder / "results.json"
    summary = json.loads(results.read_text())
    results.write_text(json.dumps(summary | changes))
    return summary


def test_the_header_names_the_network_and_what_it_costs(tmp_path):
    finished_evaluation(tmp_path, 6)
    network = {"name": "i3d_r50", "alpha": 0.1, "parameters": 27_225_000, "gflops_per_view": 25.65}
    change_results(tmp_path, protocol={"views": "10x3", "network": network})

    page = text_of(tmp_path)

    assert "i3d_r50, alpha 0.1, 27.2 M parameters, 25.65 GFLOPs per view" in page
    assert "without" not in page[: page.index("</header>")]

    network["uncounted"] = ["rnn.a", "b", "c", "d"]
    change_results(tmp_path, protocol={"views": "10x3", "network": network})
    assert "(multiply-adds, without those of rnn.a, b, c and 1 more)" in text_of(tmp_path)
    assert "<span>loss</span>" in page


def test_every_class_has_its_precision_recall_and_f1(tmp_path):
    finished_evaluation(tmp_path, 6)

    page = text_of(tmp_path)

    row = json.loads((tmp_path / "results.json").read_text())["classes"][1]
    assert "Precision, recall and F1 of each class" in page
    assert (
        f"<td class=n>{row['precision']:.1f} %</td><td class=n>{row['recall']:.1f} %</td>" in page
    )


def test_pictures_link_to_the_files_that_are_there(tmp_path, monkeypatch):
    """Relative to the page, so that a folder that is moved as a whole keeps its links."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    finished_evaluation(tmp_path / "run", 6)
    (tmp_path / "videos").mkdir()
    for i in range(0, 40, 2):
        (tmp_path / "videos" / f"{i}.mp4").touch()

    page = text_of(tmp_path / "run")

    links = re.findall(r'<a href="([^"]+)">([^<]+)</a>', page)
    assert links
    assert all((tmp_path / "run" / href).is_file() for href, _ in links)
    assert {int(name.removesuffix(".mp4")) % 2 for _, name in links} == {0}


def test_the_order_of_frames_has_a_section_where_it_was_measured(tmp_path):
    finished_evaluation(tmp_path, 6)
    without = text_of(tmp_path)
    right = {name: np.arange(40) < 30 - 8 * i for i, name in enumerate(ORDERS)}
    change_results(tmp_path, frame_order=summarize_orders(right))

    page = text_of(tmp_path)

    assert "Does time matter?" not in without
    assert "Time matters: the network needs the frames in their order." in page
    assert "one frame repeated" in page


def test_a_wide_matrix_says_that_it_scrolls(tmp_path):
    for num_classes in (3, 17):
        (tmp_path / str(num_classes)).mkdir()
        finished_evaluation(tmp_path / str(num_classes), num_classes)

    narrow, wide = (text_of(tmp_path / str(num_classes)) for num_classes in (3, 17))

    assert "move it sideways" not in narrow
    assert "move it sideways" in wide
    assert re.search(r"@media \(max-width: [89]\d\dpx\) { .hint", wide)
    assert 'role="region" aria-label="confusion matrix"' in wide


def test_names_cannot_write_html(tmp_path):
    finished_evaluation(tmp_path, 40)

    page = text_of(tmp_path, config="A: <script>", title="<i>run</i>")

    assert """<b>&"'""" not in page
    assert "A: <script>" not in page
    assert "<i>run" not in page


def test_films_show_the_most_confident_mistake_first(tmp_path):
    finished_evaluation(tmp_path, 6)
    asked = []

    write_report(tmp_path, film=lambda index: asked.append(index) or film(index))

    with np.load(tmp_path / "scores.npz") as arrays:
        scores, labels = arrays["scores"], arrays["targets"].argmax(axis=1)
    wrong = np.flatnonzero(scores.argmax(axis=1) != labels)
    assert asked[0] == wrong[scores[wrong].max(axis=1).argmax()]
    assert len(asked) == 12


def test_a_film_that_cannot_be_had_is_left_out(tmp_path):
    finished_evaluation(tmp_path, 6)

    page = write_report(tmp_path, film=lambda index: None).read_text()

    assert "<img" not in page


def test_a_few_classes_have_a_number_in_each_cell_and_many_a_picture(tmp_path):
    for num_classes in (6, 400):
        (tmp_path / str(num_classes)).mkdir()
        finished_evaluation(tmp_path / str(num_classes), num_classes)

    few, many = (text_of(tmp_path / str(num_classes)) for num_classes in (6, 400))

    assert 'class="matrix"' in few
    assert 'class="map"' not in few
    assert 'class="map"' in many
    assert '"cells":' in many


def test_training_curves_come_from_what_can_be_read_of_the_log(tmp_path):
    finished_evaluation(tmp_path, 6)
    without = text_of(tmp_path)

    log_training(tmp_path)

    assert "Learning rate" not in without
    assert "Learning rate" in text_of(tmp_path)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"multi_label": True}, "mean average precision"), ({"labeled": False}, "without labels")],
)
def test_other_kinds_of_lists_have_a_page_too(tmp_path, options, words):
    finished_evaluation(tmp_path, 6, **options)

    page = text_of(tmp_path)

    assert words in page
    assert "<img" in page


def test_the_page_names_no_address_outside_itself(tmp_path):
    finished_evaluation(tmp_path, 400)
    log_training(tmp_path)

    page = text_of(tmp_path, config="A: 1", environment={"torch": "2"})

    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert not re.findall(r"url\(|@import", page)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("num_classes", [6, 400])
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_every_picture_and_fetches_nothing(tmp_path, num_classes, width):
    finished_evaluation(tmp_path, num_classes, unread=(1,))
    log_training(tmp_path)
    page = text_of(tmp_path, config="A: " + "long " * 100, environment={"torch": "2"})

    seen = look_at(page, tmp_path, width)

    assert seen["width"] == width
    assert len(seen["pictures"]) >= 6 * 8
    assert all(seen["pictures"])
    assert len(seen["charts"]) >= 4
    assert all(seen["charts"])
    assert seen["fetched"] == []
    assert seen["wider"] <= 0


def look_at(page, folder, width):
    (folder / "probed.html").write_text(page.replace("</main>", "</main>" + PROBE))
    around = folder / "around.html"
    around.write_text(AROUND.format(page="probed.html", width=width))
    command = [
        CHROMIUM,
        *FLAGS.split(),
        f"--user-data-dir={folder / 'profile'}",
        "--dump-dom",
        around.as_uri(),
    ]
    dumped = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r"<pre>({.*?})</pre>", dumped)
    assert found, dumped[-2000:]
    return json.loads(unescape(found[1]))
