"""A folder behind a scheme that iopath has a handler for."""

from iopath.common.file_io import PathHandler


class FolderHandler(PathHandler):
    """opens://x is the file x of `folder`; a process that gets the handler by pickle has it too."""

    def __init__(self, folder):
        self._folder = folder

    def _get_supported_prefixes(self):
        return ["opens://"]

    def _place(self, path):
        return self._folder / path.removeprefix("opens://")

    def _open(self, path, mode="r", buffering=-1, **kwargs):
        return self._place(path).open(mode)

    def _rm(self, path, **kwargs):
        self._place(path).unlink()

    def _ls(self, path, **kwargs):
        return [file.name for file in self._place(path).iterdir()]
