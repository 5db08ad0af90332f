"""PythonQt's view of Qt, over PySide6: what Slicer's ``qt`` and ``ctk`` modules do and what they refuse."""

from .problems import problems
from .wrapping import Wrapper, invokable, register, unwrap, wrap, wrapperClass

__all__ = ["Wrapper", "invokable", "problems", "register", "unwrap", "wrap", "wrapperClass"]
