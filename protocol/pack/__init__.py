"""Packs: the byte string that takes one truck from what it has to what it should have."""

from protocol.pack.plain import FRAME_BYTES, Frame, FrameCodec, decode_pack, encode_pack, wanted_files

__all__ = ["FRAME_BYTES", "Frame", "FrameCodec", "decode_pack", "encode_pack", "wanted_files"]
