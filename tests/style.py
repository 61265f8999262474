"""Prints how plain the code is, folder by folder, beside the limits in pyproject.toml; exit status 1 above them.

    python tests/style.py

A line is a physical line that holds code: no blank line, no comment, no docstring.
"""

import ast
import io
import sys
import tokenize
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def tokens_per_line(source):
    """Number of tokens of each line of code."""
    docstrings = docstring_lines(ast.parse(source))
    counts = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        line = token.start[0]
        if token.type not in LAYOUT and line not in docstrings:
            counts[line] = counts.get(line, 0) + 1
    return list(counts.values())


def docstring_lines(tree):
    """Numbers of the lines that strings as statements take."""
    lines = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.update(range(node.lineno, node.end_lineno + 1))
    return lines


def comprehensions(source):
    """Number of comprehensions and generator expressions."""
    count = 0
    for node in ast.walk(ast.parse(source)):
        count += isinstance(node, COMPREHENSIONS)
    return count


def foreign_private_names(sources, listed):
    """Private attributes that the sources use and none of them defines, or takes from `super()`: those of Keras.

    A name that is listed is one of Keras', also where a class of the package sets it.
    """
    used, defined, inherited = set(), set(), set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Name):
                defined.add(node.id)
            elif isinstance(node, ast.Attribute):
                own = isinstance(node.ctx, ast.Store) and getattr(node.value, "id", "") == "self"
                names = defined if own else used
                names.add(node.attr)
                if isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super":
                    inherited.add(node.attr)
    private = set()
    for name in (used - defined) | inherited | (used & set(listed)):
        if name.startswith("_") and not name.startswith("__"):
            private.add(name)
    return private


def percentile(values, share):
    """The smallest value that at least this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)]


def private_keras_modules(sources):
    """Modules below keras.src that the sources import or name."""
    modules = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            name = node.module if isinstance(node, ast.ImportFrom) else getattr(node, "value", "")
            if isinstance(name, str) and name.startswith("keras.src"):
                modules.add(name)
    return modules


def measure(sources):
    """Lines of code, comprehensions per 100 of them, and the 90th percentile of tokens per line."""
    tokens, count = [], 0
    for source in sources:
        tokens.extend(tokens_per_line(source))
        count += comprehensions(source)
    if not tokens:
        return 0, 0.0, 0
    return len(tokens), 100 * count / len(tokens), percentile(tokens, 0.9)


def print_folder(folder, limits):
    """Prints the figures of each file of a folder; returns its sources, and whether the folder is within the limits."""
    most, widest = limits["comprehensions-per-100-lines"], limits["tokens-per-line"]
    sources = {}
    for path in sorted(folder.rglob("*.py")):
        sources[path.relative_to(folder.parent)] = path.read_text()
    for path, source in sources.items():
        lines, density, width = measure([source])
        mark = "  above" if density > most or width > widest else ""
        print(f"{lines:13} {density:14.1f} {width:13}   {path}{mark}")
    lines, density, width = measure(sources.values())
    print(f"{lines:13} {density:14.1f} {width:13}   all of {folder.name}/")
    longest = sorted(sources, key=lambda path: -len(sources[path].splitlines()))
    for path in longest[:3]:
        print(f"{path} has {len(sources[path].splitlines())} lines")
    return sources.values(), density <= most and width <= widest


def uses_private_names_as_listed(sources, limits):
    """Prints the private names of Keras that the sources use and pyproject.toml does not list, and the other way."""
    listed = set(limits["private-keras-names"] + limits["private-keras-modules"])
    used = foreign_private_names(sources, listed) | private_keras_modules(sources)
    if used != listed:
        print(f"private names of Keras: used but not in pyproject.toml: {sorted(used - listed)}")
        print(f"private names of Keras: in pyproject.toml but not used: {sorted(listed - used)}")
    return used == listed


def main():
    limits = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["style"]
    most, widest = limits["comprehensions-per-100-lines"], limits["tokens-per-line"]
    print(f"{'lines of code':>13} {'comprehensions':>14} {'tokens a line':>13}   (limits: {most} per 100, {widest})")
    package, plain = print_folder(ROOT / "keras_collab", limits)
    for name in ("examples", "tuning"):
        _, is_plain = print_folder(ROOT / name, limits)
        plain = plain and is_plain
    return uses_private_names_as_listed(package, limits) and plain


if __name__ == "__main__":
    sys.exit(not main())
