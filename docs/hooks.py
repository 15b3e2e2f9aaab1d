"""What MkDocs does beyond its plugins: more pages, links out of ``docs``, no other hosts.

``mkdocs.yml`` names this file; it is no part of the package.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
#: Files of the checkout's root that are pages of the site, too.
PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
#: A link in Markdown to something that is not a web address or a heading of the same page.
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[\w-]+)?\)")
#: What makes a browser ask another host as it shows a page. Links that people follow do not.
FOREIGN = re.compile(
    r"<(?:script|link|img|audio|source|iframe)\b[^>]*(?:src|href)=\"?(?:https?:)?//"
)


def on_config(config: Any) -> Any:
    """Put the pages of a folder where the navigation says ``folder/*``."""
    config.nav = [entry for entry in map(_expand, config.nav) if entry]
    return config


def _expand(entry: dict[str, Any]) -> dict[str, Any]:
    ((title, pages),) = entry.items()
    if not isinstance(pages, str) or not pages.endswith("/*"):
        return entry
    folder = ROOT / "docs" / pages[:-2]
    found = sorted(folder.glob("*.md"), key=lambda page: (page.stem != "index", page.name))
    return {title: [f"{folder.name}/{page.name}" for page in found]} if found else {}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie in the checkout's root."""
    for name in PAGES:
        path = ROOT / name
        if path.exists():
            files.append(File.generated(config, name, content=path.read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead links to pages of the site, and show the path of every other file of the checkout."""
    source = page.file.src_uri
    in_root = source in PAGES
    folder = "" if in_root else posixpath.join("docs", posixpath.dirname(source))

    def lead(link: re.Match[str]) -> str:
        words, target, anchor = link[1], link[2], link[3] or ""
        path = posixpath.normpath(posixpath.join(folder, target))
        name = posixpath.relpath(path, "docs") if path.startswith("docs/") else path
        if name in PAGES or (path.startswith("docs/") and files.get_file_from_path(name)):
            return f"[{words}]({posixpath.relpath(name, posixpath.dirname(source))}{anchor})"
        if not (ROOT / path).exists():
            raise PluginError(f"{source}: {target} is not in the checkout")
        if target in words or path in words:
            return words if "`" in words else f"`{path}`"
        return f"{words} (`{path}`)"

    parts = re.split(r"(^```.*?^```)", markdown, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else LINK.sub(lead, part) for part in parts)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that would fetch something from another host.

    Raises:
        PluginError: it names what is fetched.
    """
    found = FOREIGN.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} asks another host: {output[found.start() :][:200]}")
    return output
