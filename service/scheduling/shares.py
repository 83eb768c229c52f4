"""What one share may hold of a bound, so that none fills it alone.

A share is whatever counts as one caller, such as the name of a key or an address.
"""

from __future__ import annotations

SPARE = 4


def over_share(held: float, free: float) -> bool:
    """Whether a share that holds `held` of a room may take no more of the `free` rest.

    It may hold up to `SPARE` times what stays free: four fifths of the room where it is alone, so
    that there is always a place for the next one, four ninths each of two, and so on. These are
    the dynamic thresholds of Choudhury and Hahne (IEEE/ACM Transactions on Networking 6, 1998).
    A share that holds nothing may always have the last place.
    """
    return held > 0 and held >= SPARE * free
