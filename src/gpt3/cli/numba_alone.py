"""numba without scipy, for commands whose loops do no linear algebra of NumPy's: a third of the time to the first token."""

from __future__ import annotations

import contextlib
import sys


def import_numba() -> None:
    """Import numba, unless it is there, with scipy hidden from it: it would import that for `np.dot` in its functions.

    For a process of our own only: in a user's, other functions of numba may need it.
    """
    if "numba" in sys.modules or "scipy" in sys.modules:
        return
    sys.modules["scipy"] = None  # type: ignore[assignment]  # an import of it raises ImportError
    try:
        with contextlib.suppress(ImportError):  # then the engine says what is missing
            import numba
            import numba.np.arraymath  # noqa: F401
    finally:
        del sys.modules["scipy"]
