"""How embeddings are packed, by values that can be checked by hand."""

import base64

import numpy as np

from jv5kit.server.packing import OutputType, pack

ROW = np.array([[0.5, -0.5, 0.0, 1.0, -1.0, 0.004, -0.004, 2.0] + [-1.0] * 7 + [1.0]], np.float32)


def test_numbers() -> None:
    assert pack(ROW, "float", as_base64=False) == ROW.tolist()
    # 0.5 * 127 = 63.5 goes to the even 64; what is beyond a byte is clipped.
    assert pack(ROW, "int8", as_base64=False) == [[64, -64, 0, 127, -127, 1, -1, 127] + [-127] * 7 + [127]]
    assert pack(ROW, "uint8", as_base64=False) == [[191, 64, 128, 255, 0, 128, 127, 255] + [0] * 7 + [255]]


def test_bits() -> None:
    (ubinary,) = pack(ROW, "ubinary", as_base64=False)
    assert ubinary == [0b10010101, 0b00000001]
    (binary,) = pack(ROW, "binary", as_base64=False)
    assert binary == [0b10010101 - 128, 1 - 128]
    assert {type(value) for value in [*ubinary, *binary]} == {float}


def test_base64() -> None:
    expected: dict[OutputType, bytes] = {
        "float": ROW.astype("<f4").tobytes(),
        "int8": np.array([64, -64, 0, 127, -127, 1, -1, 127] + [-127] * 7 + [127], "i1").tobytes(),
        "ubinary": bytes([0b10010101, 1]),
        "binary": np.array([21, -127], "i1").tobytes(),
    }
    for output, packed in expected.items():
        (text,) = pack(ROW, output, as_base64=True)
        assert isinstance(text, str)
        assert base64.b64decode(text) == packed


def test_no_embeddings() -> None:
    assert pack(np.empty((0, 8), np.float32), "ubinary", as_base64=True) == []
