"""Cleaning of text: HTML, bad text and duplicates go, document by document."""

from kronpress.data.cleaning.batch import Batch, Flags
from kronpress.data.cleaning.documents import Document
from kronpress.data.cleaning.duplicates import DUPLICATES, Duplicates, Exact, NearDuplicates, NoDuplicates, ShortStudy
from kronpress.data.cleaning.filters import FILTERS, Filter, Length, Repetition, Symbols
from kronpress.data.cleaning.html import HTML, AnyHtml, Html, StrictHtml, StudyHtml
from kronpress.data.cleaning.language import Language
from kronpress.data.cleaning.minhash import MinHash
from kronpress.data.cleaning.passes import clean, is_cleaned, preview, report_of
from kronpress.data.cleaning.settings import Cleaning

__all__ = [
    "DUPLICATES",
    "FILTERS",
    "HTML",
    "AnyHtml",
    "Batch",
    "Cleaning",
    "Document",
    "Duplicates",
    "Exact",
    "Filter",
    "Flags",
    "Html",
    "Language",
    "Length",
    "MinHash",
    "NearDuplicates",
    "NoDuplicates",
    "Repetition",
    "ShortStudy",
    "StrictHtml",
    "StudyHtml",
    "Symbols",
    "clean",
    "is_cleaned",
    "preview",
    "report_of",
]
