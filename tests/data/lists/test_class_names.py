import fsspec
import pytest

from octvideo.data.lists.class_names import match_classes, names_beside, read_class_names
from octvideo.errors import DataError


def test_equal_names_keep_their_labels():
    assert match_classes(["a", "b"], ["a", "b"]) == [0, 1]


def test_another_order_is_mapped_by_name():
    assert match_classes(["kick", "wave", "point"], ["wave", "point", "kick"]) == [1, 2, 0]


def test_a_list_may_hold_some_of_the_classes():
    assert match_classes(["kick", "wave", "point"], ["point"]) == [2]


def test_underscores_and_case_do_not_matter():
    assert match_classes(["riding a bike"], ["Riding_a_bike"]) == [0]


def test_unknown_classes_are_refused_with_their_names_and_number():
    with pytest.raises(DataError, match=r"2 of 3 classes are not among the 2 .*'hug', 'push'"):
        match_classes(["kick", "wave"], ["hug", "push", "wave"])


def test_a_repeated_name_is_refused():
    with pytest.raises(DataError, match="'wave' stands there 2 times"):
        match_classes(["kick", "wave"], ["wave", "Wave"])


def test_kinetics_600_is_mapped_into_any_order(shared):
    names = read_class_names(shared / "facts" / "kinetics600_classes.txt")

    mapping = match_classes(sorted(names, reverse=True), names)

    assert mapping == list(range(599, -1, -1))


def test_kinetics_400_labels_are_not_scored_by_a_kinetics_600_model(shared):
    k400, k600 = (
        read_class_names(shared / "facts" / f"kinetics{n}_classes.txt") for n in (400, 600)
    )

    with pytest.raises(DataError, match="of 400 classes are not among the 600"):
        match_classes(k600, k400)


def test_names_are_found_beside_a_list(tmp_path):
    assert names_beside(tmp_path / "val.csv") is None

    (tmp_path / "class_names.txt").write_text("kick\nriding a bike\n\n")

    assert names_beside(tmp_path / "val.csv") == ["kick", "riding a bike"]


def test_pyslowfasts_json_gives_the_names_in_the_order_of_its_labels(tmp_path):
    path = tmp_path / "kinetics_classnames.json"
    path.write_text('{\n "\\"riding a bike\\"": 1,\n "kick": 0,\n "wave": "2"\n}\n')

    assert read_class_names(path) == ["kick", "riding a bike", "wave"]


@pytest.mark.parametrize(
    "text", ['{"a": 0, "b": 2}', '{"a": 0, "b": 0}', '{"a": "x"}', '{"a": 0', "[1]", '["a"]', "a"]
)
def test_a_json_without_a_label_for_each_name_is_refused(text, tmp_path):
    (tmp_path / "names.json").write_text(text)

    with pytest.raises(
        DataError, match=r"names.json: is not \{\"name\": label, ...\} with labels 0"
    ):
        read_class_names(tmp_path / "names.json")


@pytest.mark.parametrize("file", ["names.txt", "names.json"])
def test_names_in_another_encoding_are_refused(file, tmp_path):
    (tmp_path / file).write_bytes('{"caf\xe9": 0}\n'.encode("latin-1"))

    with pytest.raises(DataError, match=f"{file}: is not UTF-8; save the file in that encoding"):
        read_class_names(tmp_path / file)


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_an_empty_file_of_names_is_refused(text, tmp_path):
    (tmp_path / "class_names.txt").write_text(text)

    with pytest.raises(DataError, match="no class names"):
        names_beside(tmp_path / "val.csv")


def test_names_beside_a_list_on_a_server(tmp_path, serve, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    url = serve(tmp_path / "data").url
    assert names_beside(f"{url}/val.csv") is None

    (tmp_path / "data" / "class_names.txt").write_text("kick\nwave\n")

    assert names_beside(f"{url}/val.csv") == ["kick", "wave"]


def test_a_server_that_does_not_answer_is_not_one_without_names(tmp_path, monkeypatch):
    monkeypatch.setattr("octvideo.data.storage.ranges._remote_state", _does_not_answer)

    with pytest.raises(DataError, match="no answer"):
        names_beside("http://127.0.0.1:9/val.csv")


def _does_not_answer(address):
    raise DataError(f"{address}: no answer")


def test_corrected_names_on_a_server_are_read(tmp_path, serve, monkeypatch):
    monkeypatch.setenv("OCTVIDEO_HOME", str(tmp_path / "home"))
    (tmp_path / "data").mkdir()
    url = serve(tmp_path / "data").url

    for names in (["kick", "wave"], ["kick", "point"]):
        (tmp_path / "data" / "class_names.txt").write_text("\n".join(names))
        assert names_beside(f"{url}/val.csv") == names


def test_names_in_a_store_of_fsspec_need_no_handler():
    fsspec.filesystem("memory").pipe("/names/class_names.txt", "\ufeffkick\nwave\n".encode())

    assert names_beside("memory://names/val.csv") == ["kick", "wave"]


def test_a_missing_file_of_names_is_one_line_wherever(tmp_path):
    for path in (tmp_path / "names.txt", tmp_path, "memory://names/none.txt"):
        with pytest.raises(
            DataError, match=r"there is no such file, or it cannot be read .* one class"
        ):
            read_class_names(path)
