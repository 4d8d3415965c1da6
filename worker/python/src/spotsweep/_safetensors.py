"""Named tensors of PyTorch as a safetensors file, written and read without that library. Must not know what they are for.

The format: the length of a JSON header (u64, little endian), the header (name: dtype, shape, and the place of the data
behind the header), and the data in row-major order, little endian.
Source: https://github.com/huggingface/safetensors#format.
"""

import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Mapping, Tuple

# Longest header that is read. The reference implementation has the same limit.
HEADER_BYTES = 100_000_000
# The header is padded with spaces to a multiple of this, so that the data is aligned.
ALIGNMENT = 8

# The format's names, and PyTorch's for the same.
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def fits(torch: Any, tensor: Any) -> bool:
    """Whether the format has the tensor's dtype and layout."""
    return tensor.layout is torch.strided and not tensor.is_quantized and _name(torch, tensor) is not None


def write(torch: Any, path: Path, tensors: Mapping[str, Any]) -> None:
    """Writes `tensors`, in ascending order of names, so that equal tensors make equal files."""
    if sys.byteorder != "little":
        raise OSError("safetensors are little endian, and this machine is not")
    header: Dict[str, Any] = {}
    flat: List[Any] = []
    end = 0
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        # Not at once as bytes: a tensor without dimensions cannot be viewed as another dtype.
        data = tensor.to("cpu").contiguous().reshape(-1).view(torch.uint8)
        header[name] = {
            "dtype": _name(torch, tensor),
            "shape": list(tensor.shape),
            "data_offsets": [end, end + data.numel()],
        }
        end += data.numel()
        flat.append(data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % ALIGNMENT)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for data in flat:
            if data.numel():
                file.write(_bytes(data))


def read(torch: Any, path: Path) -> Dict[str, Any]:
    """The tensors of a file, on the CPU.

    # Errors: ValueError for anything that `write` does not write.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(HEADER_BYTES, size - 8):
            raise ValueError("%s is cut short, or no safetensors file" % path)
        header = json.loads(file.read(length))
        start = 8 + length
        tensors: Dict[str, Any] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            dtype, shape, (begin, end) = _entry(torch, entry)
            if not 0 <= begin <= end <= size - start:
                raise ValueError("%s is cut short: '%s' lies beyond its end" % (path, name))
            data = torch.empty(end - begin, dtype=torch.uint8)
            if end > begin:
                file.seek(start + begin)
                if file.readinto(_bytes(data)) != end - begin:
                    raise ValueError("%s is cut short in '%s'" % (path, name))
            tensors[name] = data.view(dtype).reshape(shape)
    return tensors


def _entry(torch: Any, entry: Any) -> Tuple[Any, List[int], Tuple[int, int]]:
    begin, end = entry["data_offsets"]
    dtype = getattr(torch, DTYPES[entry["dtype"]])
    shape = [int(size) for size in entry["shape"]]
    elements = 1
    for size in shape:
        elements *= size
    if end - begin != elements * torch.empty(0, dtype=dtype).element_size():
        raise ValueError("a tensor of shape %s has %d bytes" % (shape, end - begin))
    return dtype, shape, (begin, end)


def _name(torch: Any, tensor: Any) -> Any:
    return next((name for name, ours in DTYPES.items() if getattr(torch, ours, None) is tensor.dtype), None)


def _bytes(data: Any) -> Any:
    """The memory of a tensor of bytes, which NumPy would give too; PyTorch works without NumPy."""
    import ctypes

    return (ctypes.c_char * data.numel()).from_address(data.data_ptr())
