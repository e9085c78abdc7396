from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from edge.clock import ClockState
from edge.content import OpenedFolder
from edge.pages import CONTENT_SECURITY_POLICY, ServedBundle, choose_language, folder_page, start_page
from edge.status import ClockStatus, DiskStatus, EdgeStatus, LinkStatus, QueueStatus, VersionStatus

DISK = DiskStatus(0, 1, 0, 1, 81_500_000_000)
STATUS = EdgeStatus(
    truck="ke-arrow",
    queues=(QueueStatus("normal", 42, 50_123, 60.0),),
    links=(LinkStatus("sat", False, 10, 30_000_000, 28_000_000, 95.0), LinkStatus("lte", True, 0)),
    versions=(VersionStatus("maths", "2.0", "1.0", 512, 1024),),
    clock=ClockStatus(ClockState.SYNCED),
    disk=DISK,
    last_contact_age_s=200_000.0,
)
BUNDLES = [ServedBundle("maths", "1.0", "Maths & more", 12_000_000), ServedBundle("library", "3")]


class Outline(HTMLParser):
    """The elements that are open when the page ends, its links, and every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_page_is_whole_links_only_to_content_and_asks_nobody_else(language: str):
    page = start_page(STATUS, BUNDLES, language)
    outline = Outline(page)
    assert outline.open == []
    assert outline.links == ["content/maths/", "content/library/", "sessions"]
    assert not {"script", "img", "link", "iframe", "form"} & outline.tags
    assert "://" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert f'<html lang="{language}">' in page
    assert "width=device-width" in page
    assert "prefers-color-scheme:dark" in page


def test_a_teacher_reads_what_is_here_and_how_the_truck_does():
    text = Outline(start_page(STATUS, BUNDLES, "en")).text
    for words in (
        "Maths & more",
        "library",
        "not working, 28 MB left in this period",
        "working, no limit",
        "2 days ago",
        "42 reports, 50 kB",
        "maths: 2.0 is on its way (50 %)",
        "82 GB",
    ):
        assert words in text


def test_the_french_page_has_no_english_left():
    text = Outline(start_page(STATUS, BUNDLES, "fr")).text
    for words in (
        "Salle de classe ke-arrow",
        "ne fonctionne pas, encore 28 Mo",
        "il y a 2 jours",
        "42 rapports, 50 ko",
    ):
        assert words in text
    assert not re.search(r"\b(ago|left|reports|days|working|free|never)\b", text, re.IGNORECASE)


def test_an_empty_truck_says_so():
    status = EdgeStatus("x", (), (), (), ClockStatus(ClockState.UNSET), DISK)
    text = Outline(start_page(status, [], "en")).text
    assert "No content has arrived yet." in text
    assert "never" in text
    assert "not known; it sets itself at the next contact" in text
    assert "all up to date" in text


def test_whatever_comes_from_outside_is_escaped():
    evil = '"><script>alert(1)</script>'
    status = EdgeStatus(evil, (), (LinkStatus(evil, True, 0),), (VersionStatus(evil, evil, None),), STATUS.clock, DISK)
    for page in (
        start_page(status, [ServedBundle(evil, evil, evil)], "en"),
        folder_page(evil, OpenedFolder((evil, "javascript:alert(1)"), complete=False), "en"),
    ):
        outline = Outline(page)
        assert "script" not in outline.tags
        assert all(link.startswith(("content/%22", "./", "../", "sessions")) for link in outline.links)


def test_a_listing_says_when_it_is_cut():
    assert "more files" in folder_page("x", OpenedFolder(("a",), complete=False), "en")
    assert "more files" not in folder_page("x", OpenedFolder(("a",), complete=True), "en")


def test_the_policy_allows_the_pages_own_style_and_nothing_else():
    style = re.search(r"<style>(.*)</style>", start_page(STATUS, [], "en"), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in CONTENT_SECURITY_POLICY
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'; ")


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("fr", "fr"),
        ("fr-CD,fr;q=0.9,en;q=0.8", "fr"),
        ("de,en;q=0.5,fr;q=0.7", "fr"),
        ("sw,en;q=0.5", "sw"),
        ("am-ET", "am"),
        ("pt-MZ,pt;q=0.9", "pt"),
        ("en,fr", "en"),
        ("fr;q=0,en;q=0.1", "en"),
        ("fr;q=nan", "en"),
        ("fr;q=7", "en"),
        ("FR-fr ; q=0.3", "fr"),
        ("de", "en"),
        (",;q=,=;" * 5000 + "fr", "en"),
    ],
)
def test_the_language_is_what_the_browser_likes_most(header: str | None, language: str):
    assert choose_language(header) == language
