"""README and docs tell the truth where a machine can check it: links, anchors, code, settings. Needs no sandbox."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for link in LINK.findall(text):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_examples_compile(page: Path) -> None:
    for language, code in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            compile(code, name(page), "exec")


def variables(text: str) -> set[str]:
    """The names of our settings and of Daytona's that occur in `text`."""
    return set(re.findall(r"\b(?:INSPECT_)?DAYTONA_[A-Z][A-Z_]*[A-Z]\b", text))


def test_every_variable_of_the_readme_exists_in_the_code() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.rs"))
    # options of local Daytona are read by their last part
    options = {f"INSPECT_DAYTONA_LOCAL_{option}" for option in re.findall(r'"([A-Z_]+)" => ', code)}
    known = variables(code) | options
    assert variables((ROOT / "README.md").read_text(encoding="utf-8")) - known == set()


def test_every_option_of_local_daytona_is_documented() -> None:
    code = (ROOT / "src/local/control/options.rs").read_text(encoding="utf-8")
    options = {
        f"INSPECT_DAYTONA_LOCAL_{option}" for option in re.findall(r'^\s+"([A-Z_]+)" => ', code, re.MULTILINE)
    }
    assert options, "the options moved"
    documented = variables((ROOT / "docs/local-daytona.md").read_text(encoding="utf-8"))
    assert options - documented == set()


def test_every_goal_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    goals = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert set(re.findall(r"\bmake ([a-z-]+)\b`|^make ([a-z-]+)", pages, re.MULTILINE)) != set()
    named = {
        first or second
        for first, second in re.findall(r"`make ([a-z-]+)`|^make ([a-z-]+)", pages, re.MULTILINE)
    }
    assert named - goals == set()
