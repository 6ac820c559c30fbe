"""What a reader's program sees of a page that we write."""

from __future__ import annotations

from html.parser import HTMLParser

_ALONE = ("meta", "img", "link", "br")  # tags without an end


class Page(HTMLParser):
    """What a page would load, whether its tags are closed, and the names of its parts.

    Attributes:
        open: tags that are not closed.
        loads: what stands for something to load, or to go to.
        scripts: how many there are, those in attributes included.
        ids: names of parts.
        texts: all text, piece by piece.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.scripts = 0
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _ALONE:
            self.open.append(tag)
        self.scripts += tag == "script" or any(name.startswith("on") for name, _ in attrs)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
