"""Tars made in memory."""

import io
import tarfile


def tar_of(files, *, format=tarfile.PAX_FORMAT):
    """The bytes of a tar of files: name -> content."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=format) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()
