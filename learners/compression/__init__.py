"""How tensors cross a link: frames of bytes, checked before anything is made of them."""

from .codec import CodecError, Layout, check_layout, decode, encode, layout_of, read_frames

__all__ = ["CodecError", "Layout", "check_layout", "decode", "encode", "layout_of", "read_frames"]
