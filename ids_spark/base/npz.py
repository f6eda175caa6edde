"""Arrays of an `.npz` file, checked: plain numbers only, all finite."""

import io

import numpy as np
from numpy.typing import NDArray


def read_npz(content: bytes) -> dict[str, NDArray[np.generic]]:
    """Return the arrays of an `.npz` file by name.

    Raises:
        ValueError: it is no such file, is damaged, or holds something else than real, finite numbers.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as packed:
            arrays = {name: packed[name] for name in packed.files}
    except Exception as error:  # a damaged zip or header raises errors of many kinds
        raise ValueError(f"not an .npz file: {' '.join(str(error).split())[:200]}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            raise ValueError(f"{name} does not hold real, finite numbers")
    return arrays
