"""tools/make_demo_data.py as a user calls it."""


def test_it_writes_lists_into_the_folder(run_tool, tmp_path):
    result = run_tool("make_demo_data", tmp_path / "demo", "--clips", 8, 0, 2)

    assert "10 clips" in result.out
    assert len((tmp_path / "demo" / "train.csv").read_text().splitlines()) == 8
    assert len(list((tmp_path / "demo" / "test").iterdir())) == 2
