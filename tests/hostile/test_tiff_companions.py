"""TIFFs that name other files: outside of the scan's folder they are refused, however the name is written."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from ptycho_core.errors import DataError
from ptycho_core.io.planes import read_plane
from ptycho_core.limits import Limits, within

tifffile = pytest.importorskip("tifffile")
pytestmark = pytest.mark.hostile

SECRET = np.random.default_rng(3).integers(1, 99, (24, 32)).astype(np.uint16)
UUID = "urn:uuid:aaaaaaaa-0000-0000-0000-00000000000"


def ome(path: Path, named: str, doctype: str = "") -> Path:
    """An OME-TIFF of two planes, the second in another file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    planes = "".join(
        f'<TiffData IFD="0" FirstZ="{z}" PlaneCount="1"><UUID FileName="{name}">{UUID}{z}</UUID></TiffData>'
        for z, name in enumerate((path.name, named))
    )
    text = (
        f'<?xml version="1.0"?>{doctype}<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{UUID}0">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="32" SizeY="24" '
        f'SizeC="1" SizeZ="2" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{planes}</Pixels></Image></OME>'
    )
    tifffile.imwrite(path, 0 * SECRET, description=text.encode(), metadata=None, photometric="minisblack")
    return path


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "a secret.tif"
    tifffile.imwrite(path, SECRET, photometric="minisblack")
    return path


@pytest.mark.parametrize(
    ("named", "doctype"),
    [
        ("../a secret.tif", ""),
        ("..&#47;a secret.tif", ""),
        ("&x;", '<!DOCTYPE OME [<!ENTITY x "../a secret.tif">]>'),
        ("../a\nsecret.tif", ""),  # a line's end in an attribute is a blank
    ],
)
def test_an_ome_tiff_reads_no_file_outside_however_it_names_it(secret, tmp_path, named, doctype):
    path = ome(tmp_path / "scan" / "mask.tif", named, doctype)
    with pytest.raises(DataError, match=r"a secret\.tif', which is .*outside of the scan's folder.*--allow_external"):
        read_plane(path)
    with within(Limits(external=True)):
        np.testing.assert_array_equal(read_plane(path)[1], SECRET)


def test_one_that_is_reached_by_a_link_names_files_beside_what_the_link_leads_to(secret, tmp_path):
    ome(tmp_path / "raw" / "deep" / "mask.tif", "../../a secret.tif")
    (tmp_path / "scan").mkdir()
    link = tmp_path / "scan" / "mask.tif"
    link.symlink_to(tmp_path / "raw" / "deep" / "mask.tif")
    with pytest.raises(DataError, match="outside of the scan's folder"):
        read_plane(link)


def test_a_file_of_its_own_folder_is_read(secret, tmp_path):
    path = ome(tmp_path / "mask.tif", secret.name)
    np.testing.assert_array_equal(read_plane(path), np.stack([0 * SECRET, SECRET]))


def ndtiff(path: Path) -> None:
    """A TIFF with Micro-Manager's header of NDTiff 2 behind that of TIFF."""
    pixels, summary, metadata = (0 * SECRET).tobytes(), b"{}", b'{"a": 1}\0'
    own = struct.pack("<IIII", 483729, 2, 2355492, len(summary)) + summary
    start = 8 + len(own)
    tags = [(256, 32), (257, 24), (258, 16), (259, 1), (262, 1), (273, start), (277, 1), (278, 24), (279, len(pixels))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    entries += struct.pack("<HHII", 51123, 2, len(metadata), start + len(pixels))
    directory = struct.pack("<H", len(tags) + 1) + entries + bytes(4)
    ahead = b"II*\0" + struct.pack("<I", start + len(pixels) + len(metadata)) + own + pixels + metadata
    path.write_bytes(ahead + directory)


def test_an_ndtiff_opens_no_file_outside_that_its_index_names(secret, tmp_path):
    (tmp_path / "scan").mkdir()
    path, index = tmp_path / "scan" / "mask.tif", tmp_path / "scan" / "NDTiff.index"
    ndtiff(path)
    axes, named = json.dumps({"z": 0}).encode(), b"../a secret.tif"
    entry = struct.pack("<I", len(axes)) + axes + struct.pack("<I", len(named)) + named
    index.write_bytes(entry + struct.pack("<IiiiiIii", 0, 32, 24, 1, 0, 0, 0, 0))
    with pytest.raises(DataError, match="outside of the scan's folder"):
        read_plane(path)
    index.unlink()
    os.mkfifo(index)
    with pytest.raises(DataError, match="named pipe"):
        read_plane(path)
