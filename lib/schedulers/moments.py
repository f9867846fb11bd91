"""The mean variances of rows and columns from sums, for loops in which a step must cost little.

With q = Σ_ij S_ij² and r_i, c_j the sums of the rows and columns of a B × B matrix,

    mean row variance    = (q − Σ_i r_i² / B) / B²,
    mean column variance = (q − Σ_j c_j² / B) / B²:

three passes over the matrix and none over a copy of it. Both lose digits where the similarities'
mean is large beside their deviations, so that the matrix is then centred first: a constant that is
taken off every similarity changes no variance. What remains is an error of a few units in the last
place of the *total* variance, which moves a weight by about |γ| times that.
"""

import torch
from torch import Tensor

from .checks import check_similarity

CENTRED_FROM = 1 / 16
"""Share of the mean square that a variance must reach to be taken without centring first."""


def mean_variances(similarity: Tensor) -> Tensor:
    r"""Return the mean variance of the rows and that of the columns, from sums.

    The mean over queries of :func:`lib.schedulers.variance`, up to rounding, at a fraction of its
    cost. With S centred and its row means :math:`m_i`,

    .. math::

       \text{mean row variance} = \frac{1}{B^2} \sum_{ij} S_{ij}^2 - \frac{1}{B} \sum_i m_i^2 .

    It works under ``torch.compile``, ``torch.func.vmap`` and on any device.

    Args:
        similarity: (..., B, B). Half precision is read in single precision.

    Returns:
        (..., 2): ``i2t`` (rows) then ``t2i`` (columns), in single precision or double.

    Raises:
        ValueError: ``similarity`` is not (..., B, B) of floats, or B < 2.

    >>> mean_variances(torch.tensor([[0.8, 0.0], [0.4, 0.2]]))
    tensor([0.0850, 0.0250])
    """
    check_similarity(similarity, finite=False)
    if similarity.dtype in (torch.float16, torch.bfloat16):
        similarity = similarity.float()
    size = similarity.shape[-1]
    centred = similarity - similarity.mean(dim=(-2, -1), keepdim=True)
    square = centred.square().mean(dim=(-2, -1))
    means = torch.stack([centred.mean(dim=-1), centred.mean(dim=-2)], dim=-2)
    return (square.unsqueeze(-1) - means.square().sum(dim=-1) / size).clamp(min=0)


def mean_variances_on_host(similarity: Tensor) -> tuple[float, float]:
    """Return what :func:`mean_variances` does as two numbers, in the fewest calls.

    At B = 128 the calls themselves are what a step costs, so it stays with two sums and three
    products where no digits are at stake.

    Args:
        similarity: (B, B), contiguous, on the CPU, in single or double precision, not required to
            be finite: then the numbers are not finite either.

    >>> mean_variances_on_host(torch.eye(2))
    (0.25, 0.25)
    """
    size = similarity.shape[0]
    flat = similarity.view(-1)
    rows, columns = similarity.sum(1), similarity.sum(0)
    square = torch.dot(flat, flat).item()
    row_part = (square - torch.dot(rows, rows).item() / size) / size**2
    column_part = (square - torch.dot(columns, columns).item() / size) / size**2
    # Written so that a comparison with NaN goes on to the other way, which keeps it.
    if min(row_part, column_part) >= CENTRED_FROM * square / size**2:
        return row_part, column_part
    i2t, t2i = mean_variances(similarity).tolist()
    return i2t, t2i
