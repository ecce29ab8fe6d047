"""What torch says where a network has an operation without the derivative that a method needs."""

from __future__ import annotations


def lacks_derivative(error: BaseException | None) -> bool:
    """Whether torch failed because an operation has no forward-mode derivative, or none under torch.func transforms.

    torch raises NotImplementedError for the first, or a RuntimeError that names forward-mode AD, and a RuntimeError that names
    functorch for an autograd.Function written without `setup_context`.
    """
    if isinstance(error, NotImplementedError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("forward" in text or "functorch" in text)
