"""The report of a measurement: one HTML file with plots, tables and the worst pictures, nothing loaded from outside."""

from __future__ import annotations

from ovyolo.report.page import check_installed, write_report

__all__ = ["check_installed", "write_report"]
