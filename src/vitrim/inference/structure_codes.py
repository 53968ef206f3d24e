"""Codes of anatomical structures for the names of classes, as DICOM SEG needs them.

A name has a code if DICOM's context groups of segmented properties (PS3.16, CID 7151 and its parts) have a concept of
this meaning. pydicom holds these groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

SIDES = ("left", "right")

SYNONYMS = {
    "csf": "cerebrospinal fluid",
    "grey matter": "gray matter",
    "tumor": "neoplasm",
    "tumour": "neoplasm",
    "oedema": "edema",
    "oesophagus": "esophagus",
    "urinary bladder": "bladder",
}
"""Name of a class to the meaning that DICOM gives its concept."""

GROUPS = {"cid7159": "MorphologicallyAbnormalStructure", "cid7191": "Tissue", "cid7192": "AnatomicalStructure"}
"""Context group to the category of its concepts (CID 7150)."""

OTHER = "SpatialAndRelationalConcept"
"""Category of a class without a code."""

OWN_SCHEME = "99VITRIM"
"""Scheme of the codes of such classes; names that begin with 99 are private."""


@dataclass(frozen=True)
class StructureCode:
    """Codes of pydicom's kind for one class."""

    category: Any
    concept: Any
    side: Any = None
    """Left or right; None if the name says neither, or if the concept has its side"""
    known: bool = True
    """Whether the concept is DICOM's, not a private one of this class"""


def structure_code(label: int, name: str) -> StructureCode:
    """Return the codes of the class with this label and name."""
    from pydicom.sr.codedict import Code, codes

    plain = " ".join(name.lower().replace("_", " ").replace("-", " ").split())
    whole = _concept(plain)
    if whole is not None:
        return StructureCode(*whole)
    side, _, rest = plain.partition(" ")
    part = _concept(rest) if side in SIDES else None
    if part is not None:
        return StructureCode(*part, side=getattr(codes.SCT, side.capitalize()))
    own = Code(str(label), OWN_SCHEME, name[:64])
    return StructureCode(getattr(codes.SCT, OTHER), own, known=False)


def _concept(meaning: str) -> tuple[Any, Any] | None:
    """Return category and concept of a meaning in small letters; None if there is none."""
    return _concepts().get(SYNONYMS.get(meaning, meaning))


@lru_cache(maxsize=1)
def _concepts() -> dict[str, tuple[Any, Any]]:
    from pydicom.sr.codedict import codes

    found: dict[str, tuple[Any, Any]] = {}
    for group, category in GROUPS.items():
        concepts = getattr(codes, group)
        for keyword in dir(concepts):
            if keyword[0].isupper() and keyword != "Background":
                concept = getattr(concepts, keyword)
                found.setdefault(concept.meaning.lower(), (getattr(codes.SCT, category), concept))
    return found
