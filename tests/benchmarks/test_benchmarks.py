"""What holds for all scripts of benchmarks/."""

import ast


def test_a_script_imports_modules_and_no_other_script(repo):
    files = sorted((repo / "benchmarks").rglob("*.py"))
    scripts = {file.stem for file in files if 'if __name__ == "__main__"' in file.read_text()}

    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not scripts & set(names), f"{file.name} imports a script"
