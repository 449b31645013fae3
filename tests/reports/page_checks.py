"""What holds of every page."""

import html.parser
import re


class Tags(html.parser.HTMLParser):
    """Checks nesting and collects addresses."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.names = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check_page(page, *, pictures):
    """It is well formed, loads nothing, and has so many pictures."""
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    assert len(tags.addresses) == pictures
    assert all(address.startswith("data:image/") for address in tags.addresses)
    assert not tags.names & {"script", "link", "iframe"}
    assert not re.search(r"url\(|@import", page.split("</style>")[0])
