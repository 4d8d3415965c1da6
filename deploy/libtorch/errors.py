"""The one error that the user sees: what went wrong, and what to do about it.

Owns nothing but the type. It must not print.
"""


class FetchError(Exception):
    """`message` says what is wrong, `hint` what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotInParts(Exception):
    """This source cannot be read in parts (no Range, no access, no trust): take the whole file another way."""


OWN_LIBTORCH_HINT = (
    "if you have libtorch 2.11.0, set LIBTORCH to its folder, or SPOTSWEEP_PYTHON_TORCH=python3 for the torch of that Python"
)
