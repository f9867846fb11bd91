"""What every rival has: constants for each run of a stack, and leading axes to check."""

from torch import Tensor, nn

from ..schedulers._checks import Number, as_constant, check_similarity


class Rival(nn.Module):
    """A module for a stack of independent runs.

    Args:
        batch_shape: The stack's leading axes.
    """

    sets_temperature = False

    def __init__(self, batch_shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.batch_shape = tuple(batch_shape)

    def add_constant(self, name: str, value: Number) -> Tensor:
        """Keep a constant, a number or of the stack's shape, as a buffer outside the state.

        Raises:
            ValueError: It is of another shape; the message names it.
        """
        tensor = as_constant(name, value, self.batch_shape)
        self.register_buffer(name, tensor, persistent=False)
        return tensor

    def check(self, similarity: Tensor) -> None:
        """Refuse similarities that no loss can use, or of another stack.

        Raises:
            ValueError: ``similarity`` is not (..., B, B) with the stack's leading axes and B ≥ 2.
        """
        check_similarity(similarity)
        self.check_axes("similarity", similarity, 2)

    def check_axes(self, name: str, tensor: Tensor, own: int) -> None:
        """Refuse a tensor whose axes before its last ``own`` are not the stack's.

        Raises:
            ValueError: They are not; the message names the tensor.
        """
        leading = tuple(tensor.shape[: tensor.dim() - own])
        if tensor.dim() < own or leading != self.batch_shape:
            raise ValueError(
                f"{name} has leading axes {leading}, {type(self).__name__} was made with "
                f"batch_shape={self.batch_shape}"
            )


def require(good: Tensor, name: str, rule: str, value: object) -> None:
    """Refuse a constant.

    Raises:
        ValueError: Not all of ``good`` is true; the message says the constant's name and rule.
    """
    if not bool(good.all()):
        raise ValueError(f"{name} must be {rule}; it is {value}")
