"""Fixtures of the engine's tests."""

import importlib.util

import pytest
from iopath.common.file_io import NativePathHandler, g_pathmgr


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An object store is a handler for a prefix; here store:// stands for tmp_path."""

    class Store(NativePathHandler):
        def _get_supported_prefixes(self):
            return ["store://"]

    def translated(method):
        return lambda self, path, *args, **kw: method(
            self, str(tmp_path / path.removeprefix("store://")), *args, **kw
        )

    for name in ("_open", "_mkdirs", "_ls", "_isdir", "_isfile", "_rm"):
        setattr(Store, name, translated(getattr(NativePathHandler, name)))
    # Not by register_handler, which takes a subclass of the native handler in its place, for good.
    monkeypatch.setattr(
        g_pathmgr, "_path_handlers", {**g_pathmgr._path_handlers, "store://": Store()}
    )


@pytest.fixture(scope="session")
def differences(repo):
    """The comparison of two output folders that the scripts of benchmarks/ make."""
    spec = importlib.util.spec_from_file_location(
        "compare_runs", repo / "benchmarks/compare_runs.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.differences
