"""One self-contained HTML page that shows a run: what was asked, what each step looked at and found, and the answer."""

from pixelis.serve.viewer.page import write_page

__all__ = ["write_page"]
