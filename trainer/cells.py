"""Cells of the attention map that labels allow: pairs of a supervised row and a column, as two lists of indices.

Labels name few columns of few rows, so no map of all of them is made, neither when a batch is put together nor after.

Shapes: B batch, R supervised rows an example, n cells.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Cells(NamedTuple):
    """Row by row, and within a row from left to right. Row k of example b has the slot b R + k."""

    slot: Tensor  # (n,) int64, never decreasing
    column: Tensor  # (n,) int64 position in the row of the batch, increasing within a slot

    def where(self, keep: Tensor) -> "Cells":
        """Those of which `keep` (n,) bool is true."""
        return Cells(self.slot[keep], self.column[keep])

    def counts(self, rows: Tensor) -> Tensor:
        """(B, R) int64: how many cells each row has. `rows` is anything (B, R)."""
        return torch.bincount(self.slot, minlength=rows.numel()).view_as(rows)

    def of_rows(self, values: Tensor) -> Tensor:
        """(n,) for each cell that of its row, of `values` (B, R)."""
        return values.flatten().index_select(0, self.slot)

    def filled_up(self, columns: Tensor) -> "Cells":
        """The same with one cell more in each row that has none, at its column of `columns` (B, R)."""
        bare = (self.counts(columns) == 0).flatten().nonzero().flatten()
        slot, order = torch.cat([self.slot, bare]).sort(stable=True)
        return Cells(slot, torch.cat([self.column, columns.flatten()[bare]])[order])
