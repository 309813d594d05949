"""tools/make_lists.py as a user calls it."""

from octvideo.data.lists.video_list import read_list


def test_a_kinetics_csv_and_a_folder_become_lists(run_tool, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "abcdefghijk_000005_000015.mp4").touch()
    header = "label,youtube_id,time_start,time_end,split"
    (tmp_path / "validate.csv").write_text(f"{header}\nzumba,abcdefghijk,5,15,validate\n")

    result = run_tool(
        "make_lists",
        "kinetics",
        tmp_path / "videos",
        "--csv",
        tmp_path / "validate.csv",
        "--out",
        tmp_path / "lists",
    )

    assert result.status == 0, result.err
    assert "class order: kinetics400_classes" in result.out
    assert [
        video.label for video in read_list(tmp_path / "lists" / "val.csv", num_classes=400)
    ] == [399]
    assert len((tmp_path / "lists" / "class_names.txt").read_text().splitlines()) == 400
    assert "1 found, 0 missing" in (tmp_path / "lists" / "report.txt").read_text()


def test_an_annotation_file_is_not_replaced_by_a_list(run_tool, tmp_path):
    content = "label,youtube_id,time_start,time_end,split\nzumba,abcdefghijk,5,15,train\n"
    (tmp_path / "train.csv").write_text(content)

    words = tmp_path, "--csv", tmp_path / "train.csv", "--out", tmp_path
    result = run_tool("make_lists", "kinetics", *words)

    assert result.status == 2
    assert "train.csv itself" in result.err
    assert (tmp_path / "train.csv").read_text() == content


def test_a_tree_of_folders_becomes_lists(run_tool, tmp_path):
    for name in ("run/a.mp4", "run/b.mp4", "run/c.mp4", "jump/d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)

    result = run_tool(
        "make_lists", "folders", tmp_path, "--out", tmp_path / "lists", "--relative-to", tmp_path
    )

    assert "'jump' has 1 video(s): none in val and test" in result.out
    assert "jump/d.mp4 0\n" in (tmp_path / "lists" / "train.csv").read_text()


def test_lists_of_an_earlier_division_are_put_aside_and_named(run_tool, tmp_path):
    for i in range(10):
        path = tmp_path / "videos" / "run" / f"{i}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    folder = tmp_path / "lists"
    words = ["make_lists", "folders", tmp_path / "videos", "--out", folder]
    run_tool(*words)
    first = (folder / "test.csv").read_text()

    shown = run_tool(*words, "--shares", ".8", ".2", "0", "--seed", "1").out
    (folder / "test.csv").write_text("a list of my own\n")
    again = run_tool(*words, "--shares", ".8", ".2", "0").out

    assert "note: no video is in test: test.csv of before is now test.csv.old\n" in shown
    assert "is now test.csv.old2\n" in again
    assert not (folder / "test.csv").exists()
    assert (folder / "test.csv.old").read_text() == first
    assert (folder / "test.csv.old2").read_text() == "a list of my own\n"


def test_a_mistake_is_one_line_and_status_2(run_tool, tmp_path):
    result = run_tool(
        "make_lists", "ucf101", tmp_path / "none", "--splits", tmp_path, "--out", tmp_path / "lists"
    )

    assert result.status == 2
    assert result.err.startswith("error: ")
    assert len(result.err.splitlines()) == 1
