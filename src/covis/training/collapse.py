"""The watch over the spread of the descriptors: a network that describes everything alike has collapsed."""

from __future__ import annotations

SHARE_OF_MARGIN = 0.1
SHARE_OF_HIGHEST = 0.2
ROWS = 10


class Watch:
    """Looks at the spread, the mean distance of a batch's unrelated images, row after row of the log.

    Collapsed is a network whose spread stays below a tenth of the margin and below a fifth of the highest spread of its
    own so far, for ten rows in a row. Healthy networks that start from random weights have a small spread too; it rises
    from there, so that it is never far below its own highest.

    Args:
        margin: of the loss: the distance that unrelated images should have at least.

    >>> watch = Watch(0.5)
    >>> [watch.sees(spread) for spread in [0.3] + [0.01] * 12].index(True)
    10
    """

    def __init__(self, margin: float) -> None:
        self._margin = margin
        self._highest, self._low, self._said = 0.0, 0, False

    def sees(self, spread: float) -> bool:
        """Whether this row shows it for the first time; a row without unrelated images (NaN) says nothing."""
        self._highest = max(self._highest, spread) if spread == spread else self._highest
        if spread < min(SHARE_OF_MARGIN * self._margin, SHARE_OF_HIGHEST * self._highest):
            self._low += 1
        elif spread == spread:
            self._low = 0
        shown = self._low >= ROWS and not self._said
        self._said = self._said or shown
        return shown
