"""Check every link within the built site, and that no page asks another host for anything. python docs/check_links.py docs/_build/html"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The names of a page's anchors, and what it links to and loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = {"", "top"}
        self.links: list[str] = []
        self.requests: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect anchors and links."""
        for name, value in attrs:
            if value is None:
                continue
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value)
            elif name in ("href", "src"):
                self.links.append(value)
                if name == "src" or (tag == "link" and dict(attrs).get("rel") in ("stylesheet", "preload", "icon")):
                    self.requests.append(value)


def broken_links(root: Path) -> tuple[int, list[str]]:
    """The number of local links, and a line for each that leads nowhere or to another host for a part of the page."""
    pages = {path.resolve(): Page(path.read_text()) for path in root.rglob("*.html")}
    count, broken = 0, []
    for path, page in pages.items():
        broken += [
            f"{path.relative_to(root.resolve())}: asks {link}" for link in page.requests if urlsplit(link).netloc
        ]
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.exists():
                broken.append(f"{path.relative_to(root.resolve())}: {link}")
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                broken.append(f"{path.relative_to(root.resolve())}: {link} (no such anchor)")
    return count, broken


def main() -> int:
    """Print the broken links; 1 if there are any."""
    count, broken = broken_links(Path(sys.argv[1]))
    print(*broken, sep="\n", end="\n" if broken else "")
    print(f"{count} links within the site, {len(broken)} broken")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
