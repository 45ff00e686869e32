"""The second pass: find the documents that are duplicates of earlier ones."""

from __future__ import annotations

import numpy as np

from kronpress.data.cleaning.compared import STAYS, Compared
from kronpress.data.cleaning.duplicates import Duplicates, NearDuplicates
from kronpress.data.cleaning.near import near_duplicates
from kronpress.data.cleaning.words import Places, first_of_runs
from kronpress.data.cleaning.work import Work, save_arrays


def decide(rule: Duplicates, work: Work) -> None:
    """Find out which documents are duplicates, and keep it in the work folder.

    A document is near to an earlier one that stays, or exactly that of an earlier one: so what goes always has a
    duplicate that stays.
    """
    if work.decision.exists():
        return
    compared = Compared(work.parts())
    exact = exact_duplicates(compared) if rule.compares else np.full(compared.count, STAYS)
    stays = exact.copy()
    if isinstance(rule, NearDuplicates):
        alone = exact == STAYS
        stays[alone] = near_duplicates(compared, rule, work, alone=alone)[alone]
        moved = (stays != STAYS) & (stays[stays] != STAYS)  # the exact one before it went as a near one
        stays[moved] = stays[stays[moved]]
    save_arrays(work.decision, stays=stays, exact=exact != STAYS)


def exact_duplicates(compared: Compared) -> Places:
    """Return for each document the first with the same key, or STAYS for the first itself."""
    stays = np.full(compared.count, STAYS)
    for section in compared.sections:
        keys, documents = compared.keys(section)
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        keys, documents = keys[order], documents[order]
        first = first_of_runs(keys[:, 0]) | first_of_runs(keys[:, 1])
        heads = np.maximum.accumulate(np.where(first, np.arange(len(first)), 0))
        stays[documents[~first]] = documents[heads[~first]]
    return stays
