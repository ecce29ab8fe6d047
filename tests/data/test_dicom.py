"""DICOM files, written by pydicom."""

import sys

import numpy as np
import pytest
import torch

from leakgauge.data import load_data
from leakgauge.errors import DataError, MissingExtraError

PATIENT = "Doe^Jane^Secret"


@pytest.fixture
def write_dicom():
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    def write(path, array, meaning="MONOCHROME2", bits=16, **fields):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        data.PatientName, data.PatientID = PATIENT, PATIENT
        data.Rows, data.Columns = array.shape[:2] if array.ndim < 4 else array.shape[1:3]
        data.SamplesPerPixel, data.PhotometricInterpretation = (3 if meaning == "RGB" else 1), meaning
        if meaning == "RGB":
            data.PlanarConfiguration = 0
        data.BitsAllocated = 8 * array.itemsize
        data.BitsStored, data.HighBit = min(bits, 8 * array.itemsize), min(bits, 8 * array.itemsize) - 1
        data.PixelRepresentation = int(array.dtype.kind == "i")
        data.PixelData = array.tobytes()
        for key, value in fields.items():
            setattr(data, key, value)
        pydicom.dcmwrite(path, data, enforce_file_format=True)

    return write


def pixels(path):
    return load_data(f"dicom:{path}").inputs[0, 0]


VALUES = np.array([[0, 1000], [2000, 4095]], dtype=np.uint16)


def test_stored_bits_are_the_range(tmp_path, write_dicom):
    write_dicom(tmp_path / "a.dcm", VALUES, bits=12)
    assert torch.allclose(pixels(tmp_path / "a.dcm"), torch.tensor(VALUES / 4095.0, dtype=torch.float32))
    write_dicom(tmp_path / "b.dcm", VALUES, bits=12, meaning="MONOCHROME1")
    assert torch.allclose(pixels(tmp_path / "b.dcm"), torch.tensor(1 - VALUES / 4095.0, dtype=torch.float32))
    signed = np.array([[-2048, 2047]], dtype=np.int16)
    write_dicom(tmp_path / "c.dcm", signed, bits=12, RescaleSlope=2, RescaleIntercept=-7)
    assert pixels(tmp_path / "c.dcm").tolist() == [[0.0, 1.0]]


def test_window_and_rescale(tmp_path, write_dicom):
    """The worked formula of PS3.3 C.11.2.1.2.1, with c = 50, w = 351 on stored value - 1024."""
    stored = np.array([[0, 898, 1074, 1249, 4095]], dtype=np.uint16)
    write_dicom(tmp_path / "a.dcm", stored, bits=12, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=50, WindowWidth=351)
    hounsfield = stored.astype(float) - 1024
    expected = np.clip((hounsfield - 49.5) / 350 + 0.5, 0, 1)
    assert torch.allclose(pixels(tmp_path / "a.dcm"), torch.tensor(expected, dtype=torch.float32), atol=1e-6)


def test_window_functions(tmp_path, write_dicom):
    stored = np.array([[0, 50, 100]], dtype=np.uint8)
    window = {"WindowCenter": [50, 10], "WindowWidth": [100, 10]}  # the first of several counts
    write_dicom(tmp_path / "exact.dcm", stored, bits=8, VOILUTFunction="LINEAR_EXACT", **window)
    assert pixels(tmp_path / "exact.dcm").tolist() == [[0.0, 0.5, 1.0]]
    write_dicom(tmp_path / "sigmoid.dcm", stored, bits=8, VOILUTFunction="SIGMOID", **window)
    assert torch.allclose(pixels(tmp_path / "sigmoid.dcm"), torch.sigmoid(torch.tensor([[-2.0, 0.0, 2.0]])))
    write_dicom(tmp_path / "step.dcm", stored, bits=8, WindowCenter=50.5, WindowWidth=1)
    assert pixels(tmp_path / "step.dcm").tolist() == [[0.0, 0.0, 1.0]]


def test_colour(tmp_path, write_dicom, noise):
    array = noise(4, 6, 3)
    write_dicom(tmp_path / "a.dcm", array, meaning="RGB", bits=8)
    batch = load_data(f"dicom:{tmp_path / 'a.dcm'}")
    assert torch.equal((batch.inputs[0] * 255).round().to(torch.uint8), torch.from_numpy(array).permute(2, 0, 1))


def test_folders(tmp_path, write_dicom, noise):
    for name in ("ill/b.dcm", "well/a", "well/c.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_dicom(tmp_path / name, VALUES)
    (tmp_path / "well" / "README").write_text("not DICOM")
    batch = load_data(f"dicom:{tmp_path}?size=8")
    assert batch.names == ("ill/b.dcm", "well/a", "well/c.dcm")
    assert batch.labels.tolist() == [0, 1, 1]
    assert batch.inputs.shape == (3, 1, 8, 8)


def test_files_that_are_wrong_show_no_patient(tmp_path, write_dicom):
    write_dicom(tmp_path / "frames.dcm", np.zeros((2, 4, 4), np.uint8), NumberOfFrames=2, Rows=4, Columns=4)
    write_dicom(tmp_path / "short.dcm", VALUES, Rows=99)
    write_dicom(tmp_path / "palette.dcm", VALUES, meaning="PALETTE COLOR")
    write_dicom(tmp_path / "slope.dcm", VALUES, RescaleSlope=0)
    (tmp_path / "text.dcm").write_text(PATIENT * 20)
    for name, words in (
        ("frames", "holds several frames"),
        ("short", "cannot be read (ValueError)"),
        ("palette", "uses a colour palette"),
        ("slope", "cannot be read (ValueError)"),
        ("text", "cannot be read (InvalidDicomError)"),
    ):
        with pytest.raises(DataError) as caught:
            load_data(f"dicom:{tmp_path / name}.dcm")
        assert words in str(caught.value)
        assert f"{name}.dcm" in str(caught.value)
        assert "Secret" not in str(caught.value)


def test_without_pydicom(tmp_path, monkeypatch):
    (tmp_path / "a.dcm").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'pydicom'.*leakgauge\[medical\]"):
        load_data(f"dicom:{tmp_path}")
