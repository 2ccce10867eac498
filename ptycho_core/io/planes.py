"""Images that lie beside a scan: masks and backgrounds, and what the numbers of a mask mean.

A mask is numbers in many dialects: True or 1 for good, or for bad; NaN for bad; a bit field in which 0 is good; a
``numpy.ma`` mask, True for what is hidden. The values tell most of that; the rest is the caller's ``mask_polarity``.
"""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, MissingPackageError
from ..text import listed
from .guarded import in_child
from .h5_names import check_surroundings
from .h5_values import array_at, open_h5
from .number_table import read_array
from .readers.frame_files import check_companions
from .regular import check_regular

__all__ = ["good_pixels", "one_in", "read_mask", "read_plane"]

_HDF5_MAGIC = b"\x89HDF"
_PNG_MAGIC = b"\x89PNG"
_TIFF_MAGICS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_INSIDE = re.compile(r"(.+?\.[A-Za-z0-9]+):/?(.+)")
_ONES = {1, 2**8 - 1, 2**16 - 1}
_ALLOWED = ".npy, .npz, .h5:/path/of/dataset, .tif, .png or text"


def good_pixels(
    values: NDArray[Any], one_means: str = "good", *, stated: bool = False
) -> tuple[NDArray[np.bool_], str]:
    """Good pixels of a mask by its numbers, and how they were read.

    NaN and negative numbers are bad, always. Whole numbers other than 0 and 1 (255 and 65535 in pictures) are a bit
    field, in which 0 is good unless somebody states what 1 means. Else everything but 0 is what `one_means` says; where
    all that is left is one number, all of it is good.

    Args:
        values: (...) bool or real numbers.
        one_means: ``good`` or ``bad``.
        stated: whether somebody says so of this mask, and it is not merely what is usual.

    Returns:
        True = good, of the same shape, and a phrase that says how.
    """
    bad = np.zeros(values.shape, bool) if values.dtype.kind in "bu" else ~(values >= 0)  # NaN is not >= 0
    rest = values[~bad]
    kinds = np.unique(rest)
    if bad.any() and len(kinds) < 2:
        return ~bad, "NaN and negative numbers as bad"
    flags = set(kinds[kinds != 0].tolist())
    if not stated and values.dtype.kind in "iu" and (len(flags) > 1 or not flags <= _ONES):
        return ~bad & (values == 0), "a bit field in which 0 is good"
    ones = values != 0
    return ~bad & (ones if one_means == "good" else ~ones), f"{'True' if values.dtype == bool else '1'} as {one_means}"


def one_in(how: str) -> str:
    """What 1 means, ``good`` or ``bad``, in a mask that was read as the phrase of :func:`good_pixels` says."""
    return "bad" if how.startswith(("1 as bad", "True as bad")) or "0 is good" in how or "hidden" in how else "good"


def read_mask(path: Path, one_means: str | None) -> tuple[NDArray[np.bool_], str]:
    """Good pixels (H, W) of a mask in a file, and how they were read.

    Args:
        path: see :func:`read_plane`. An NPZ with the keys ``data`` and ``mask`` is a masked array of NumPy: True hides.
        one_means: ``good`` or ``bad``; None takes what is usual where the mask was found.

    Raises:
        DataError: as :func:`read_plane`, or a file without a mask.
    """
    found: tuple[NDArray[np.bool_], str] = in_child(_mask_in, path, one_means, about=path)
    return found


def _mask_in(path: Path, one_means: str | None) -> tuple[NDArray[np.bool_], str]:
    masked, stated = _numpy_masked(path), one_means is not None
    if masked is not None:
        good, how = good_pixels(masked, one_means or "bad", stated=stated)
        how = how if one_means else "a masked array of NumPy, True as hidden"
    else:
        good, how = good_pixels(_squeezed(_plane_in(path), path), one_means or "good", stated=stated)
    if good.ndim == 2:
        return good, how
    return np.asarray(good.all(axis=0)), f"{how}; of its {len(good)} planes, pixels that are bad in any are bad"


def _numpy_masked(path: Path) -> NDArray[Any] | None:
    """The mask of a masked array that was saved as ``data`` and ``mask``; None for anything else."""
    check_regular(path, what="a mask")
    try:
        if not zipfile.is_zipfile(path):
            return None
        with np.load(path, allow_pickle=False) as archive:
            if set(archive.files) != {"data", "mask"}:
                return None
            data, mask = np.shape(archive["data"]), np.asarray(archive["mask"])
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); save it again with np.savez.") from error
    return np.broadcast_to(mask, data) if mask.ndim == 0 else mask


def read_plane(path: Path) -> NDArray[Any]:
    """An array of real numbers from a file: NPY, NPZ, a dataset of an HDF5 file, TIFF, PNG or text.

    Args:
        path: ``file.h5:/path`` or ``file.npz:key`` names what is meant of several.

    Raises:
        DataError: it cannot be read, or holds no real numbers.
        MissingPackageError: a TIFF, and tifffile is not installed.
    """
    values: NDArray[Any] = in_child(_plane_in, path, about=path)
    return values


def _plane_in(path: Path) -> NDArray[Any]:
    path, inside = _parted(path)
    check_regular(path, what="an image of numbers")
    try:
        with path.open("rb") as stream:
            magic = stream.read(4)
    except (OSError, ValueError) as error:  # a name with a null character
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read ({reason}); check its name. Allowed: {_ALLOWED}.") from error
    if magic == _HDF5_MAGIC:
        values = _of_hdf5(path, inside)
    elif magic == _PNG_MAGIC:
        values = _of_png(path)
    elif magic in _TIFF_MAGICS:
        values = _of_tiff(path)
    elif inside:
        values = _of_npz(path, inside)
    else:
        values = read_array(path)
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path}: holds {values.dtype} values; it must hold real numbers.")
    return values


def _squeezed(values: NDArray[Any], path: Path) -> NDArray[Any]:
    """(H, W), or (k, H, W) of one mask a frame."""
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim not in (2, 3):
        raise DataError(f"{path}: is {values.shape}; a mask is (H, W), one number for each pixel of a frame.")
    return values


def _parted(path: Path) -> tuple[Path, str]:
    """File and name inside of ``file.h5:/path``."""
    match = _INSIDE.fullmatch(str(path))
    return (path, "") if match is None or os.path.lexists(path) else (Path(match[1]), match[2])


def _of_hdf5(path: Path, inside: str) -> NDArray[Any]:
    with open_h5(path) as h5:
        check_surroundings(h5)
        if not inside:
            inside = _only_plane(h5, path)
        values = array_at(h5, inside)
    if values is None:
        raise DataError(f"{path}: has no dataset {inside!r}; name one as {path.name}:/path/of/dataset.")
    return values


def _only_plane(h5: Any, path: Path) -> str:
    import h5py

    found: list[str] = []

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 2:
            found.append(name)

    h5.visititems(note)
    if len(found) != 1:
        held = listed(f"/{name}" for name in found) or "none"
        raise DataError(f"{path}: holds these images: {held}; name one as {path.name}:/path/of/dataset.")
    return found[0]


def _of_npz(path: Path, key: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if key not in archive.files:
                raise DataError(f"{path}: has no {key!r}; it holds {listed(archive.files)}.")
            return np.asarray(archive[key])
    except DataError:
        raise
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read as an NPZ with {key!r} ({error}). Allowed: {_ALLOWED}.") from error


def _of_png(path: Path) -> NDArray[Any]:
    from matplotlib.image import imread

    try:
        values = np.asarray(imread(path))
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path}: is a damaged PNG ({error}); save it again.") from error
    return values[..., 0] if values.ndim == 3 else values  # a grey image with an opacity, or one as colours


def _of_tiff(path: Path) -> NDArray[Any]:
    try:
        import tifffile
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{path}: a TIFF needs tifffile, which is not installed: pip install 'ptycho-core[readers]'; or save it as "
            ".npy."
        ) from error
    try:
        with tifffile.TiffFile(path) as tiff:
            check_companions(path, tiff)
            return np.asarray(tiff.asarray())
    except DataError:
        raise
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise DataError(f"{path}: is a damaged TIFF ({error}); save it again.") from error
