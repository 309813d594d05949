"""Output folders."""

from concurrent.futures import ThreadPoolExecutor

from octvideo.files import make_output_folder


def test_many_ranks_prove_at_once_that_they_can_write(tmp_path):
    with ThreadPoolExecutor(8) as ranks:
        list(ranks.map(make_output_folder, [str(tmp_path / "run")] * 400))

    assert list((tmp_path / "run").iterdir()) == []
