"""Tables within a page, between `<!-- name of the table -->` and END."""

from collections.abc import Mapping
from pathlib import Path

END = "<!-- end of the table -->"


def write_tables(page: Path, tables: Mapping[str, str]) -> None:
    """Replace each table, by its name, that the page has a place for."""
    text = page.read_text()
    for name, table in tables.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        if mark:
            text = f"{before}{mark}{table}\n{END}{rest.partition(END)[2]}"
    page.write_text(text)
