"""Lines of the package, and how long its functions and files are.

python benchmarks/code_size.py [FOLDER ...]
"""

import argparse
import ast
from pathlib import Path
from statistics import median, quantiles

PACKAGE = Path(__file__).resolve().parent.parent / "octvideo"


def function_lines(tree: ast.AST) -> list[int]:
    """Lines of each function from `def` on, without its docstring."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            has_docstring = ast.get_docstring(node) is not None
            first = node.body[0]
            docstring = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
            found.append(node.end_lineno - node.lineno + 1 - docstring)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, default=[PACKAGE], metavar="FOLDER")
    for folder in parser.parse_args().folders:
        texts = {path: path.read_text() for path in folder.rglob("*.py")}
        lines = {path: text.count("\n") for path, text in texts.items()}
        functions = [n for text in texts.values() for n in function_lines(ast.parse(text))]
        longest = max(lines, key=lambda path: lines[path])
        print(
            f"{folder.name}: {sum(lines.values()):,} lines in {len(lines)} files, the longest of"
            f" {lines[longest]} ({longest.relative_to(folder)}); {len(functions):,} functions:"
            f" median {median(functions):g}, 95 % within {quantiles(functions, n=20)[-1]:.0f},"
            f" longest {max(functions)} lines"
        )


if __name__ == "__main__":
    main()
