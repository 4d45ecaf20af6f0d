"""What every page made here shares: its file is written whole, it is ASCII, and its policy names its own style and script by hash."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path

from pixelis.core.errors import DataError
from pixelis.core.store import write_whole


def write_page_file(path: Path, data: bytes) -> None:
    """The whole file or none: a reader never sees half of it.

    Raises:
        DataError: it cannot be written there.
    """
    try:
        write_whole(path, data)
    except OSError as error:
        raise DataError(f"{path}: the page cannot be written ({error.strerror}): choose another place") from None


def by_hash(text: str) -> str:
    """How a Content-Security-Policy names a style or script by its content."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def in_ascii(text: str) -> str:
    """HTML with characters beyond ASCII as references."""
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii")


def read_resource(package: str, name: str) -> str:
    """A style, script or page that lies beside a module, in ASCII."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8").translate(_ESCAPES[name.rsplit(".")[-1]])


class _Escapes(dict):
    """Characters beyond ASCII as escapes of one language, so that the page reads the same in any encoding."""

    def __init__(self, form: str) -> None:
        self._form = form

    def __missing__(self, code: int) -> str | int:
        return self._form.format(code) if code > 126 else code


_ESCAPES = {"js": _Escapes("\\u{{{:x}}}"), "css": _Escapes("\\{:06x}"), "html": _Escapes("&#{};")}
