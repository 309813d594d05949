"""Pages, figures and annotated videos made from results."""

from octvideo.report.html import write_report as write_report
