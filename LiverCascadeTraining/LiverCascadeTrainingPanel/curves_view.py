"""The figures of a run as table nodes and a chart."""

from __future__ import annotations

import numpy as np
import slicer
from slicer.i18n import tr as _
from vtkmodules.vtkCommonCore import vtkDoubleArray

from .metrics import TRAINING, VALIDATION, Curves, MetricsFile

# A chart has fewer pixels than this.
MOST_POINTS = 4000
STEP = "Step"
COLORS = {"loss": (0.35, 0.35, 0.35), "dice_liver": (0.8, 0.45, 0.25), "dice_lesion": (0.15, 0.55, 0.75)}


class CurvesView:
    """Two table nodes, a series for each curve and one chart that shows them, made when they are needed."""

    def __init__(self) -> None:
        self.chartNode = None
        self._tables: dict[str, object] = {}
        self._series: dict[str, object] = {}
        self._layout: int | None = None

    @property
    def isShown(self) -> bool:
        """True while there is a chart and nobody deleted a part of it."""
        return self.chartNode is not None and all(node.GetScene() is not None for node in self._nodes())

    def show(self, metrics: MetricsFile, title: str) -> None:
        """Makes the nodes, or brings them up to date, and shows the chart."""
        if self.chartNode is not None and not self.isShown:
            self.hide()
        isNew = self.chartNode is None
        if isNew:
            self._make()
        self.chartNode.SetTitle(title)
        groups = (("training", metrics.training, TRAINING), ("validation", metrics.validation, VALIDATION))
        for group, curves, titles in groups:
            _fill(self._tables[group], curves, titles)
            for column in curves.columns:
                self._showSeries(self._series[column], bool(np.isfinite(curves.values.get(column, [])).any()))
        # The plot view follows the chart node, not the tables behind its series.
        self.chartNode.Modified()
        if isNew:
            self._showInLayout()

    def hide(self) -> None:
        """Takes the nodes out of the scene and puts the layout back."""
        for node in self._nodes():
            if node.GetScene() is not None:
                slicer.mrmlScene.RemoveNode(node)
        self.forget()
        layoutManager = slicer.app.layoutManager()
        if layoutManager is not None and self._layout is not None:
            layoutManager.setLayout(self._layout)
        self._layout = None

    def forget(self) -> None:
        """Lets go of the nodes; the scene is about to be closed."""
        self.chartNode, self._tables, self._series = None, {}, {}

    def _nodes(self) -> list[object]:
        chart = [] if self.chartNode is None else [self.chartNode]
        return [*chart, *self._series.values(), *self._tables.values()]

    def _make(self) -> None:
        scene = slicer.mrmlScene
        self.chartNode = scene.AddNewNodeByClass("vtkMRMLPlotChartNode", _("Training curves"))
        self.chartNode.SetXAxisTitle(_("step"))
        self.chartNode.SetYAxisTitle("")
        groups = (("training", _("Training figures"), TRAINING), ("validation", _("Validation figures"), VALIDATION))
        for group, name, columns in groups:
            tableNode = scene.AddNewNodeByClass("vtkMRMLTableNode", name)
            self._tables[group] = tableNode
            _fill(tableNode, Curves(tuple(columns)), columns)
            for column, text in columns.items():
                series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", text)
                series.SetAndObserveTableNodeID(tableNode.GetID())
                series.SetXColumnName(STEP)
                series.SetYColumnName(text)
                series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
                series.SetMarkerStyle(
                    slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone
                    if group == "training"
                    else slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle
                )
                series.SetColor(*COLORS[column])
                self._series[column] = series
        for node in self._nodes():
            node.SetSaveWithScene(False)

    def _showSeries(self, series: object, hasPoints: bool) -> None:
        """A series without a single number would spoil the chart's axes."""
        chartNode, nodeId = self.chartNode, series.GetID()
        if hasPoints and not chartNode.HasPlotSeriesNodeID(nodeId):
            chartNode.AddAndObservePlotSeriesNodeID(nodeId)
        elif not hasPoints and chartNode.HasPlotSeriesNodeID(nodeId):
            chartNode.RemovePlotSeriesNodeID(nodeId)
        series.Modified()

    def _showInLayout(self) -> None:
        layoutManager = slicer.app.layoutManager()
        if layoutManager is None or not hasattr(slicer.modules, "plots"):
            return
        before = layoutManager.layout
        slicer.modules.plots.logic().ShowChartInLayout(self.chartNode)
        self._layout = before


def _fill(tableNode: object, curves: Curves, titles: dict[str, str]) -> None:
    """Writes the points into the table, as doubles; every nth where there are too many."""
    every = max(1, -(-len(curves.steps) // MOST_POINTS))
    wanted = {STEP: curves.steps, **{title: curves.values.get(name, []) for name, title in titles.items()}}
    table = tableNode.GetTable()
    wasModifying = tableNode.StartModify()
    if table.GetNumberOfColumns() != len(wanted):
        tableNode.RemoveAllColumns()
        for title in wanted:
            column = vtkDoubleArray()
            column.SetName(title)
            tableNode.AddColumn(column)
    for title, values in wanted.items():
        column = table.GetColumnByName(title)
        points = np.asarray(values, float)[::every]
        column.SetNumberOfValues(len(points))
        for index, value in enumerate(points.tolist()):
            column.SetValue(index, value)
        column.Modified()
    table.Modified()
    tableNode.EndModify(wasModifying)
