"""What is written from tables is up to date, and says what the tables say. (Configs and docs/zoo.md: tests/zoo.)"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from fcos_d2.config.train_options import TRAIN_OPTIONS
from projects_tools import docs_pages, option_table

ROOT = Path(__file__).resolve().parents[2]


def test_options_of_training_are_up_to_date() -> None:
    text = (ROOT / "docs" / "training-options.md").read_text(encoding="utf-8")
    assert text == option_table.markdown(), "run projects_tools/write_configs.py"
    keys = re.findall(r"^\| `train\.(\w+)", text, flags=re.M)
    assert set(TRAIN_OPTIONS) <= set(keys)


@dataclass
class Options:
    """What `comments` reads."""

    first: int = 1  # behind it
    # before it,
    # on two lines
    second: str = "a"
    third: str = "b"


def test_comments_of_fields() -> None:
    assert option_table.comments(Options) == {"first": "behind it", "second": "before it, on two lines", "third": ""}


def test_links_of_top_pages_stay_on_the_site() -> None:
    text = "[a](docs/zoo.md#x) [b](CONTRIBUTING.md) ![c](docs/images/demo.jpg) [d](https://x.org/docs/y) [e](#here)"
    page = "[a](zoo.md#x) [b](contributing.md) ![c](images/demo.jpg) [d](https://x.org/docs/y) [e](#here)"
    assert docs_pages.top_page(text) == page
    with pytest.raises(ValueError, match="fcos_d2/cli"):
        docs_pages.top_page("[code](fcos_d2/cli)")
    for name in docs_pages.PAGES:
        docs_pages.top_page((ROOT / name).read_text(encoding="utf-8"))


def test_every_public_module_has_a_page() -> None:
    pages, navigation = docs_pages.reference()
    assert {"index.md", "modeling/index.md", "modeling/focal.md", "weights/families/index.md"} <= set(pages)
    assert not any("_compat" in page or "importers" in page for page in pages)
    assert pages["modeling/focal.md"].rstrip().startswith("---\ntitle: fcos_d2.modeling.focal\n")
    assert navigation.count("\n") == len(pages) and "* [modeling](modeling/index.md)" in navigation


def test_links_and_paths_in_docs_exist() -> None:
    """Paths of the repository in code quotes, and modules after `python -m`, are there."""
    for path in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        text = path.read_text(encoding="utf-8")
        places = re.findall(r"\b((?:fcos_d2|projects_tools|tests|configs)/[\w./-]*\w)", text)
        places += [name.replace(".", "/") for name in re.findall(r"-m ((?:fcos_d2|projects_tools)[\w.]+)", text)]
        missing = {place for place in places if not any((ROOT / f"{place}{suffix}").exists() for suffix in ("", ".py"))}
        assert missing == set(), path.name
