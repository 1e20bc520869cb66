"""Linear operators ``A(x)`` with adjoints ``A.T(y)``, which also give the gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from quietray.errors import GeometryError

__all__ = ["Adjoint", "LinearOperator"]


class LinearOperator(ABC):
    """A linear map between arrays of fixed shapes, with its exact adjoint.

    A numpy array gives a numpy array; a torch tensor gives a tensor that carries gradients.  The gradient of ``A(x)``
    is ``A.T`` applied to the incoming gradient.
    """

    matched: ClassVar[bool] = True
    """Whether ``A.T`` is the adjoint of ``A`` to single precision, and not only an approximation."""

    @property
    @abstractmethod
    def domain_shape(self) -> tuple[int, ...]:
        """Shape of the input of ``A``."""

    @property
    @abstractmethod
    def range_shape(self) -> tuple[int, ...]:
        """Shape of the output of ``A``."""

    @property
    def slicewise(self) -> bool:
        """Whether slices are independent: no ray crosses two, and the first axes of domain and range correspond."""
        return False

    @abstractmethod
    def forward(self, x: np.ndarray) -> np.ndarray:
        """Apply the operator to a float32 array of `domain_shape`."""

    @abstractmethod
    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """Apply the adjoint to a float32 array of `range_shape`."""

    def forward_tensor(self, x: Tensor) -> Tensor:
        """Apply the operator to a tensor, without gradients; dtype and device are preserved."""
        return _through_numpy(self.forward, x)

    def adjoint_tensor(self, y: Tensor) -> Tensor:
        """Apply the adjoint to a tensor, without gradients; dtype and device are preserved."""
        return _through_numpy(self.adjoint, y)

    @property
    def T(self) -> LinearOperator:
        """The adjoint as an operator."""
        return Adjoint(self)

    def __call__(self, x: Any) -> Any:
        """Apply the operator to a numpy array or a torch tensor of `domain_shape`, and return the same type."""
        if tuple(x.shape) != self.domain_shape:
            raise GeometryError(f"the operator's input must have shape {self.domain_shape}, got {tuple(x.shape)}")
        if isinstance(x, Tensor):
            return _Apply.apply(x, self)  # type: ignore[no-untyped-call]
        return self.forward(np.require(x, np.float32, ["C_CONTIGUOUS", "WRITEABLE"]))  # ASTRA refuses read-only arrays


class Adjoint(LinearOperator):
    """The adjoint of an operator.

    Parameters
    ----------
    operator
        The operator whose adjoint this is; ``Adjoint(A).T`` is ``A`` again.
    """

    def __init__(self, operator: LinearOperator) -> None:
        self._operator = operator

    @property
    def domain_shape(self) -> tuple[int, ...]:
        """Range of the operator."""
        return self._operator.range_shape

    @property
    def range_shape(self) -> tuple[int, ...]:
        """Domain of the operator."""
        return self._operator.domain_shape

    @property
    def slicewise(self) -> bool:
        """Same as that of the operator."""
        return self._operator.slicewise

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Apply the operator's adjoint."""
        return self._operator.adjoint(x)

    def adjoint(self, y: np.ndarray) -> np.ndarray:
        """Apply the operator itself."""
        return self._operator.forward(y)

    def forward_tensor(self, x: Tensor) -> Tensor:
        """Apply the operator's adjoint."""
        return self._operator.adjoint_tensor(x)

    def adjoint_tensor(self, y: Tensor) -> Tensor:
        """Apply the operator itself."""
        return self._operator.forward_tensor(y)

    @property
    def T(self) -> LinearOperator:
        """The operator itself."""
        return self._operator


def _through_numpy(apply: Callable[[np.ndarray], np.ndarray], x: Tensor) -> Tensor:
    out = apply(np.ascontiguousarray(x.detach().cpu().float().numpy()))
    return torch.from_numpy(out).to(device=x.device, dtype=x.dtype)


class _Apply(torch.autograd.Function):
    """Apply an operator to a tensor; the backward pass applies the adjoint, which is itself differentiable."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: LinearOperator) -> Tensor:
        ctx.operator = operator
        return operator.forward_tensor(x.detach())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.operator.T(gradient), None
