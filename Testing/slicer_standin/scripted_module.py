"""The module slicer.ScriptedLoadableModule: the base classes, with the attributes that modules lean on."""

from __future__ import annotations

import os
import unittest
from typing import Any

import slicer

__all__ = [
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
    "ScriptedLoadableModuleWidget",
]


def _resourcePath(modulePath: str, name: str) -> str:
    return os.path.join(os.path.dirname(modulePath), "Resources", name)


class ScriptedLoadableModule:
    """What the module selector shows; ``parent`` is a qSlicerScriptedLoadableModule."""

    def __init__(self, parent: Any):
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.helpText = "This module was created from a template."
        import qt

        for extension in (".svg", ".png"):
            path = _resourcePath(parent.path, f"Icons/{self.moduleName}{extension}")
            if os.path.isfile(path):
                parent.icon = qt.QIcon(path)
                break
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename: str) -> str:
        """Path of a file in the module's Resources."""
        return _resourcePath(self.parent.path, filename)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        """A sentence with the link to Slicer's documentation."""
        return f'<p><a href="{slicer.app.moduleDocumentationUrl(self.moduleName)}">online documentation</a></p>'

    def runTest(self, msec: int = 100, **kwargs: Any) -> None:
        """Runs the class NAMETest of the module's file."""
        import sys

        test = getattr(sys.modules[type(self).__module__], f"{self.moduleName}Test")()
        test.messageDelay = msec
        test.runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    """The panel; ``parent`` is a qSlicerScriptedLoadableModuleWidget."""

    def __init__(self, parent: Any = None):
        super().__init__()
        import qt

        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=slicer.util.toBool)
        self.parent = parent
        if parent is None:
            self.parent = slicer.qMRMLWidget()
            self.parent.setLayout(qt.QVBoxLayout())
            self.parent.setMRMLScene(slicer.mrmlScene)
        self.layout = self.parent.layout()
        if parent is None:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename: str) -> str:
        """Path of a file in the module's Resources."""
        return _resourcePath(slicer.util.modulePath(self.moduleName), filename)

    def setup(self) -> None:
        """Of the developer's section nothing is imitated."""

    def cleanup(self) -> None:
        """For derived classes."""

    def _onModuleAboutToBeUnloaded(self, moduleName: str) -> None:
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)


class ScriptedLoadableModuleLogic:
    """The logic, with its node in the scene."""

    def __init__(self, parent: Any = None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        """The scene's node for this module, made if it is not there."""
        for node in self.getAllParameterNodes():
            return node
        if self.isSingletonParameterNode:
            node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
            if node is not None:  # the attribute is lost when a scene is closed
                node.SetAttribute("ModuleName", self.moduleName)
                return node
        return slicer.mrmlScene.AddNode(self.createParameterNode())

    def getAllParameterNodes(self) -> list[Any]:
        """All of the scene's nodes for this module."""
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self) -> Any:
        """A new node, not yet in the scene."""
        node = slicer.vtkMRMLScriptedModuleNode()
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The module's self-test."""

    def __init__(self, *arguments: Any, **keywords: Any):
        super().__init__(*arguments, **keywords)
        self.messageDelay = 0

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        """Lets the event loop catch up."""
        print(message)
        slicer.app.processEvents()

    def runTest(self) -> None:
        """For derived classes; here all methods with 'test' in their names."""
        for name in [name for name in dir(self) if name.startswith("test")]:
            self.setUp()
            getattr(self, name)()
            self.tearDown()
