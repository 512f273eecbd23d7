"""Reports on what a guard says of rows: what is collected in one pass, the checks, the page with its charts, model cards."""

from pushforward.report.assemble import Subject, assemble
from pushforward.report.checks import CHECKS, Check
from pushforward.report.collected import Collected
from pushforward.report.document import Report

__all__ = ["CHECKS", "Check", "Collected", "Report", "Subject", "assemble"]
