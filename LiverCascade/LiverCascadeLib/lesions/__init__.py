"""Lesions, measured: declarations and pure functions, without MRML."""
