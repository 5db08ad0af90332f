"""A strict stand-in for the application half of 3D Slicer, for tests without Slicer.

Real are: MRML with its logics and storage nodes and ``slicer.util`` (both from slicer-core), Qt's widgets, event
loop, processes and .ui loader (PySide6, off screen). Imitated are PythonQt's rules about attributes, connections and
numbers, ``slicer.app``, ``slicer.modules``, ``parameterNodeWrapper``, ``ScriptedLoadableModule``, the qMRML and ctk
widgets that the module uses, dialogs (they never open; the test answers them) and the installation of packages. Where
Slicer forgives by luck, the stand-in refuses; names that it does not know raise AttributeError.

    import slicer_standin

    standin = slicer_standin.install()
    widget = standin.openModule("LiverCascade/LiverCascade.py")
    standin.click(widget.ui.segmentButton)
    standin.uninstall()          # raises if a slot had raised, or a signal was not found

What it does not imitate:

* drawing of slice and 3D views, displayable managers, screenshots of views;
* Segment Editor effects: a test edits the segments itself;
* Qt 5's signals and methods that Qt 6 lacks; that Python threads starve while Slicer's event loop idles; that Slicer
  on Linux sets itself to nice 19;
* modules in C++ beyond their logic; the subject hierarchy's plugins and view; the Data, DICOM and Sequences modules;
* parameter packs, lists and unions in parameter nodes; translations; the developer's section; drag and drop;
* reading of anything but volumes, label maps, segmentations, transforms, tables and scenes;
* ``super()`` calls to Qt's methods in Python subclasses (call the class's function); plain integers for enums;
* destruction of objects in the order of a closing Slicer; memory and thread behavior of PythonQt.
"""

from .handle import SlicerStandin, StandinProblems, install

__all__ = ["SlicerStandin", "StandinProblems", "install"]
