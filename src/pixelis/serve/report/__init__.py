"""One self-contained HTML page over many runs: tables with intervals, curves of training, examples, and where each of them comes from."""

from pixelis.serve.report.page import write_report

__all__ = ["write_report"]
