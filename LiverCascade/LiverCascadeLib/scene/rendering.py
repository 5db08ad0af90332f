"""A picture of the segmentation from MRML's own 3D view, drawn off screen."""

from __future__ import annotations

import ctypes

import numpy as np
import slicer
import vtkmodules.vtkRenderingOpenGL2  # noqa: F401  (registers the drawing classes)
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkRenderingCore import (
    vtkRenderer,
    vtkRenderWindow,
    vtkRenderWindowInteractor,
    vtkWindowToImageFilter,
)

from ..report.overview import Rendering
from .segmentations import createClosedSurface

BACKGROUND = (0.11, 0.12, 0.14)
# Anterior, slightly right and superior of the liver, in RAS.
VIEW_DIRECTION = np.array([0.35, 1.0, 0.30])
_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
)
NO_DRIVER = "no OpenGL driver: install libEGL with Mesa, or libOSMesa"


def render3D(
    scene: slicer.vtkMRMLScene, segmentationNode: slicer.vtkMRMLSegmentationNode, size: tuple[int, int] = (720, 720)
) -> Rendering:
    """Draws the segmentation as a 3D view of the scene shows it.

    Args:
        size: width and height in pixels.

    Returns:
        the picture, or the reason why there is none: no segment, or no OpenGL. A driver that is installed but
        broken can still end the process; run this where that may happen (:class:`~.process.SceneProcess`).
    """
    if segmentationNode.GetSegmentation().GetNumberOfSegments() == 0:
        return Rendering(None, "nothing was segmented")
    if not segmentationNode.GetSegmentation().ContainsRepresentation("Closed surface"):
        createClosedSurface(segmentationNode)
    window = _offscreenWindow(size)
    if window is None:
        return Rendering(None, NO_DRIVER)
    renderer = vtkRenderer()
    renderer.SetUseFXAA(True)
    window.AddRenderer(renderer)
    interactor = vtkRenderWindowInteractor()  # the camera manager asks the renderer's window for one
    interactor.SetRenderWindow(window)
    viewNode = scene.AddNewNodeByClass("vtkMRMLViewNode")
    cameraNode = scene.AddNewNodeByClass("vtkMRMLCameraNode")
    group = slicer.vtkMRMLDisplayableManagerGroup()
    try:
        _setUpView(viewNode, cameraNode)
        group.Initialize(_managerFactory(scene), renderer)
        group.SetMRMLDisplayableNode(viewNode)
        _aim(renderer, segmentationNode)
        window.Render()
        return Rendering(_pixels(window))
    finally:
        group.SetMRMLDisplayableNode(None)
        scene.RemoveNode(cameraNode)
        scene.RemoveNode(viewNode)
        window.Finalize()


def _offscreenWindow(size: tuple[int, int]) -> vtkRenderWindow | None:
    window = vtkRenderWindow()
    # VTK falls back to this class where it finds no GLX and no EGL, and crashes in it where OSMesa is missing too.
    if window.GetClassName() == "vtkOSOpenGLRenderWindow" and not _hasOSMesa():
        return None
    window.SetShowWindow(False)
    window.SetOffScreenRendering(1)
    window.SetMultiSamples(0)
    window.SetAlphaBitPlanes(1)
    window.SetSize(*size)
    return window


def _hasOSMesa() -> bool:
    for name in ("libOSMesa.so.8", "libOSMesa.so"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def _setUpView(viewNode, cameraNode) -> None:
    viewNode.SetLayoutName("LiverCascadeOverview")
    cameraNode.SetLayoutName("LiverCascadeOverview")
    viewNode.SetBackgroundColor(*BACKGROUND)
    viewNode.SetBackgroundColor2(*BACKGROUND)
    viewNode.SetBoxVisible(False)
    viewNode.SetAxisLabelsVisible(False)
    viewNode.SetUseDepthPeeling(True)  # lesions inside a translucent liver


def _managerFactory(scene):
    factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance()
    if factory.GetMRMLApplicationLogic() is None:
        logic = slicer.vtkMRMLApplicationLogic()
        logic.SetMRMLScene(scene)
        factory.SetMRMLApplicationLogic(logic)
    for name in _MANAGERS:
        if not factory.IsDisplayableManagerRegistered(name):
            factory.RegisterDisplayableManager(name)
    return factory


def _aim(renderer: vtkRenderer, segmentationNode) -> None:
    bounds = np.zeros(6)
    segmentationNode.GetRASBounds(bounds)
    center = bounds.reshape(3, 2).mean(axis=1)
    camera = renderer.GetActiveCamera()
    camera.SetFocalPoint(*center)
    camera.SetPosition(*(center + VIEW_DIRECTION))
    camera.SetViewUp(0, 0, 1)
    renderer.ResetCamera(*bounds)
    camera.Zoom(1.35)  # ResetCamera fits the sphere around the box: more than the liver needs
    renderer.ResetCameraClippingRange(*bounds)


def _pixels(window: vtkRenderWindow) -> np.ndarray:
    grabber = vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.ReadFrontBufferOff()
    grabber.ShouldRerenderOff()
    grabber.SetInputBufferTypeToRGB()
    grabber.Update()
    image = grabber.GetOutput()
    width, height, _ = image.GetDimensions()
    pixels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, 3)
    return pixels[::-1].copy()
