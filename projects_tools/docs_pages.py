"""Pages of the documentation site that are not files of docs/: the API reference, README, CONTRIBUTING and CHANGELOG.

mkdocs runs this file (`make docs`). The package is read as text, so neither PyTorch nor Detectron2 is needed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fcos_d2"

# File of the repository -> page of the site, for links between them.
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}

# Names for code written for earlier versions; they have no page of their own.
ALIASES = {"engine", "compose", "recipes", "importers"}


def top_page(text: str) -> str:
    """A Markdown file of the repository's root as a page: links to docs/ and to other such files lead to pages.

    Raises:
        ValueError: a link leads to a file that is not on the site.
    """

    def page(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        if "://" in target or not target:
            return match[0]
        if target not in PAGES and not target.startswith("docs/"):
            raise ValueError(f"the link {match[2]!r} leaves the site: link to a page of docs/, or write code quotes")
        return f"{match[1]}({PAGES.get(target) or target.removeprefix('docs/')}{'#' + anchor if anchor else ''})"

    return re.sub(r"(\[[^\]]*\])\(([^)\s]+)\)", page, text)


def modules(folder: Path = PACKAGE) -> Iterator[Path]:
    """Public modules, each room's `__init__.py` before its modules."""
    for path in sorted(folder.iterdir(), key=lambda path: (path.name != "__init__.py", path.is_dir(), path.name)):
        private = path.stem.startswith("_") and path.name != "__init__.py"
        if private or (folder == PACKAGE and path.stem in ALIASES):
            continue
        if (path / "__init__.py").is_file():
            yield from modules(path)
        elif path.suffix == ".py":
            yield path


def reference() -> tuple[dict[str, str], str]:
    """Pages of the API reference, path -> text, and their list for the navigation."""
    pages, lines = {}, []
    for path in modules():
        parts = path.relative_to(ROOT).with_suffix("").parts
        room = parts[-1] == "__init__"
        parts = parts[:-1] if room else parts
        name = ".".join(parts)
        page = f"{'/'.join(parts[1:])}/index.md".lstrip("/") if room else f"{'/'.join(parts[1:])}.md"
        summary = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        pages[page] = f"---\ntitle: {name}\ndescription: {summary!r}\n---\n\n::: {name}\n"
        if not room:
            pages[page] += "    options:\n      show_root_toc_entry: false\n"
        lines.append(f"{'    ' * (len(parts) - 1)}* [{parts[-1]}]({page})")
    return pages, "\n".join(line.removeprefix("    ") for line in lines) + "\n"


def write() -> None:
    """Hand all pages to mkdocs."""
    import mkdocs_gen_files

    for source, page in PAGES.items():
        with mkdocs_gen_files.open(page, "w", encoding="utf-8") as file:
            file.write(top_page((ROOT / source).read_text(encoding="utf-8")))
    pages, navigation = reference()
    for page, text in pages.items():
        with mkdocs_gen_files.open(f"reference/{page}", "w", encoding="utf-8") as file:
            file.write(text)
    with mkdocs_gen_files.open("reference/SUMMARY.md", "w", encoding="utf-8") as file:
        file.write(navigation)


if __name__ == "<run_path>":  # what mkdocs-gen-files calls a script
    write()
