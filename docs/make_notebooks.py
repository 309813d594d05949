"""Write docs/notebooks/*.ipynb, executed, from the scripts beside them:  python
docs/make_notebooks.py [NAME ...]

A script is split at lines of `# %%`; a cell that begins with `# %% [markdown]` is text. Needs
nbclient and ipykernel.
"""

import os
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent / "notebooks"
MARK = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def cells(script: str) -> list[tuple[str, str]]:
    """("markdown" or "code", text) of each cell."""
    parts = MARK.split(script)[1:]
    found = []
    for mark, text in zip(parts[::2], parts[1::2], strict=True):
        if mark:
            found.append(("markdown", re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE)))
        else:
            found.append(("code", text.strip()))
    return found


def notebook(script: str) -> nbformat.NotebookNode:
    """The notebook of a script, not yet executed."""
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    for number, (kind, text) in enumerate(cells(script)):
        make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
        book.cells.append(make(text, id=f"cell-{number}"))  # the same id at every writing
    return book


def main(names: list[str]) -> None:
    for path in sorted(FOLDER.glob("*.py")):
        if names and path.stem not in names:
            continue
        book = notebook(path.read_text())
        os.environ["TQDM_DISABLE"] = "1"
        NotebookClient(book, timeout=1200).execute()
        for cell in book.cells:
            cell.metadata.pop("execution", None)  # times of day
        nbformat.write(book, path.with_suffix(".ipynb"))
        print(path.with_suffix(".ipynb"))


if __name__ == "__main__":
    main(sys.argv[1:])
