"""The stand-in refuses what Slicer refuses: each observation in a running Slicer is held here by a test."""

import enum
import functools
import logging
import sys
import threading
import types
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed")
pytest.importorskip("PySide6", reason="PySide6 is not installed")

import slicer
import slicer_standin
import vtk

MODULE = """
import qt
import slicer
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import *
from slicer.util import VTKObservationMixin
from slicer import vtkMRMLScalarVolumeNode

@parameterNodeWrapper
class ProbeParameterNode:
    inputVolume: vtkMRMLScalarVolumeNode

class Probe(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Probe")
        self.parent.categories = ["Segmentation"]

class ProbeWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None, service=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.service, self.calls = service, []

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/Probe.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = ProbeLogic()
        self.calls.append("setup")

    def enter(self):
        self.calls.append("enter")

    def exit(self):
        self.calls.append("exit")

    def cleanup(self):
        self.calls.append("cleanup")

class ProbeLogic(ScriptedLoadableModuleLogic):
    def getParameterNode(self):
        return ProbeParameterNode(super().getParameterNode())
"""

UI = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0"><class>Probe</class>
 <widget class="qMRMLWidget" name="Probe"><layout class="QVBoxLayout" name="rows">
  <item><widget class="ctkCollapsibleButton" name="section">
   <property name="text"><string>Section</string></property>
   <property name="collapsed"><bool>true</bool></property>
   <layout class="QVBoxLayout" name="inner">
    <item><widget class="qMRMLNodeComboBox" name="selector">
     <property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
     <property name="SlicerParameterName" stdset="0"><string>inputVolume</string></property></widget></item>
    <item><widget class="QLabel" name="hiddenLabel"/></item>
   </layout></widget></item>
  <item><widget class="QPushButton" name="button"><property name="text"><string>Go</string></property></widget></item>
  </layout></widget>
 <customwidgets/>
 <connections><connection><sender>Probe</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
  <receiver>selector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections>
</ui>
"""


@pytest.fixture
def standin():
    started = slicer_standin.install()
    yield started
    started.uninstall()


@pytest.fixture
def qt(standin):
    import qt

    return qt


@pytest.fixture
def ctk(standin):
    import ctk

    return ctk


@pytest.fixture
def module(standin, tmp_path: Path) -> Path:
    (tmp_path / "Resources" / "UI").mkdir(parents=True)
    (tmp_path / "Resources" / "UI" / "Probe.ui").write_text(UI, encoding="utf-8")
    (tmp_path / "Probe.py").write_text(MODULE, encoding="utf-8")
    return tmp_path / "Probe.py"


class Color(enum.Enum):
    RED = 1
    GREEN = 2


# Properties, methods, attributes


PROPERTIES = [
    ("QLabel", "text"),
    ("QSpinBox", "value"),
    ("QComboBox", "count"),
    ("QComboBox", "currentIndex"),
    ("QComboBox", "currentText"),
    ("QWidget", "size"),
    ("QWidget", "width"),
    ("QTableWidget", "rowCount"),
    ("QTreeWidget", "topLevelItemCount"),
    ("QTimer", "interval"),
    ("QWidget", "visible"),
    ("QPushButton", "enabled"),
    ("QProgressBar", "maximum"),
]


@pytest.mark.parametrize(("name", "attribute"), PROPERTIES)
def test_a_property_is_an_attribute_and_calling_it_is_a_type_error(qt, name: str, attribute: str) -> None:
    widget = getattr(qt, name)()
    value = getattr(widget, attribute)
    assert not callable(value)
    with pytest.raises(TypeError):
        getattr(widget, attribute)()


@pytest.mark.parametrize(
    ("name", "attribute"),
    [("ctkCollapsibleButton", "collapsed"), ("ctkPathLineEdit", "currentPath"), ("ctkSliderWidget", "value")],
)
def test_properties_of_ctk_widgets_are_attributes(ctk, name: str, attribute: str) -> None:
    widget = getattr(ctk, name)()
    with pytest.raises(TypeError):
        getattr(widget, attribute)()


def test_the_id_of_the_current_node_and_the_version_are_attributes(standin) -> None:
    with pytest.raises(TypeError):
        slicer.qMRMLNodeComboBox().currentNodeID()
    with pytest.raises(TypeError):
        slicer.app.applicationVersion()
    assert slicer.app.applicationVersion == "5.12.3"


def test_setters_work_both_ways(qt) -> None:
    button = qt.QPushButton()
    button.enabled = False
    button.setText("Go")
    assert (button.enabled, button.text) == (False, "Go")
    button.text = "Stop"
    assert button.text == "Stop"


def test_methods_stay_methods(qt) -> None:
    table = qt.QTableWidget(1, 1)
    table.setItem(0, 0, qt.QTableWidgetItem("cell"))
    editor = qt.QPlainTextEdit()
    editor.setPlainText("plain")
    assert table.item(0, 0).text() == "cell"
    assert editor.toPlainText() == "plain"
    assert qt.QSize(3, 4).width() == 3
    assert table.isVisible() is False
    assert slicer.qMRMLNodeComboBox().currentNode() is None


def test_the_name_of_an_object_is_its_object_name(qt) -> None:
    label = qt.QLabel()
    label.name = "label"
    assert (label.name, label.objectName) == ("label", "label")


def test_a_new_attribute_on_a_widget_of_cpp_is_an_attribute_error(qt, ctk) -> None:
    for widget in (qt.QLabel(), ctk.ctkCollapsibleButton(), slicer.qMRMLNodeComboBox(), slicer.app):
        with pytest.raises(AttributeError):
            widget.mine = 1


def test_a_new_attribute_on_a_python_subclass_is_fine(qt) -> None:
    class Label(qt.QLabel):
        pass

    label = Label("text")
    label.mine = 1
    assert (label.mine, label.text) == (1, "text")


def test_an_unknown_attribute_is_an_attribute_error(qt, ctk) -> None:
    for thing in (qt.QLabel(), ctk.ctkSliderWidget(), slicer.app, slicer.app.layoutManager(), slicer.qMRMLWidget()):
        with pytest.raises(AttributeError):
            thing.noSuchThing  # noqa: B018


def test_the_single_shot_of_a_timer_is_set_by_its_method_only(qt) -> None:
    timer = qt.QTimer()
    with pytest.raises(AttributeError):
        timer.singleShot = True
    timer.setSingleShot(True)
    assert timer.isSingleShot()


def test_a_method_or_a_signal_cannot_be_overwritten(qt) -> None:
    with pytest.raises(AttributeError, match="Slot"):
        qt.QLabel().setText = print
    with pytest.raises(AttributeError, match="Signal"):
        qt.QPushButton().clicked = print


def test_a_read_only_property_cannot_be_set(qt) -> None:
    with pytest.raises(AttributeError, match="not writable"):
        qt.QComboBox().count = 3


def test_a_property_takes_no_other_type(qt) -> None:
    label = qt.QLabel()
    for value in (5, None, Path("folder")):
        with pytest.raises(AttributeError, match="does not accept"):
            label.text = value
    with pytest.raises(AttributeError, match="does not accept"):
        label.enabled = np.bool_(True)


def test_a_label_is_no_instance_of_widget_but_inherits_it(qt) -> None:
    label = qt.QLabel()
    assert not isinstance(label, qt.QWidget)
    assert isinstance(label, qt.QLabel)
    assert label.inherits("QWidget")
    assert label.className() == "QLabel"


def test_qt_functions_take_no_keywords(qt) -> None:
    with pytest.raises(TypeError):
        qt.QLabel(text="text")
    with pytest.raises(TypeError):
        qt.QLabel().setText(text="text")


def test_enum_values_are_plain_integers_on_the_class_around_the_enum(qt) -> None:
    assert isinstance(qt.Qt.AlignLeft, int)
    assert qt.QMessageBox.Yes | qt.QMessageBox.No == int(qt.QMessageBox.Yes) + int(qt.QMessageBox.No)
    with pytest.raises(AttributeError):
        qt.Qt.AlignmentFlag.AlignLeft  # noqa: B018
    label = qt.QLabel()
    label.setAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
    assert label.alignment == qt.Qt.AlignRight | qt.Qt.AlignVCenter


@pytest.mark.parametrize(
    "name", ["Signal", "Slot", "Property", "QThread", "QTextCodec", "QStringListModelX", "QtWidgets", "SIGNAL"]
)
def test_qt_has_no_names_that_slicer_lacks_or_should_not_be_used(qt, name: str) -> None:
    with pytest.raises(AttributeError):
        getattr(qt, name)


@pytest.mark.parametrize(
    ("name", "attribute"),
    [
        ("QCheckBox", "checkStateChanged"),
        ("QFormLayout", "setRowVisible"),
        ("QTimer", "remainingTimeAsDuration"),
        ("QSize", "toTuple"),
        ("QProcess", "startCommand"),
    ],
)
def test_what_only_qt_6_or_pyside_has_is_refused(qt, name: str, attribute: str) -> None:
    with pytest.raises(AttributeError):
        getattr(getattr(qt, name)(), attribute)
    with pytest.raises(AttributeError):
        qt.QIcon.ThemeIcon  # noqa: B018


def test_setters_of_ctk_and_mrml_widgets_that_are_no_slots_do_not_exist(ctk) -> None:
    selector = slicer.qMRMLNodeComboBox()
    with pytest.raises(AttributeError):
        selector.setNodeTypes(["vtkMRMLModelNode"])
    with pytest.raises(AttributeError):
        selector.setNoneEnabled(True)
    with pytest.raises(AttributeError):
        ctk.ctkCollapsibleButton().setCollapsed(True)
    with pytest.raises(AttributeError):
        ctk.ctkSliderWidget().setMinimum(1)
    selector.nodeTypes = ["vtkMRMLModelNode"]
    assert selector.nodeTypes == ("vtkMRMLModelNode",)


def test_a_destroyed_object_is_false_and_refuses(qt) -> None:
    label = qt.QLabel()
    label.delete()
    assert not label
    with pytest.raises(ValueError, match="destroyed"):
        label.text  # noqa: B018


# Numbers, lists, bytes, settings


def test_an_integer_slot_refuses_numpy_floats_and_takes_floats_and_numpy_integers(qt) -> None:
    spin = qt.QSpinBox()
    with pytest.raises(ValueError):
        spin.setValue(np.float64(3))
    with pytest.raises(ValueError):
        qt.QProgressBar().setValue(np.float64(3))
    with pytest.raises(AttributeError):
        spin.value = np.float64(3)
    with pytest.raises(ValueError):
        spin.setMaximum(np.float64(3))
    spin.setValue(3.7)
    assert spin.value == 3
    spin.setValue(np.int64(5))
    assert spin.value == 5
    double = qt.QDoubleSpinBox()
    double.setValue(np.float64(1.5))
    assert double.value == 1.5


def test_lists_that_passed_qt_are_tuples(qt) -> None:
    item = qt.QTableWidgetItem()
    item.setData(qt.Qt.UserRole, [1, 2])
    assert item.data(qt.Qt.UserRole) == (1, 2)
    parent = qt.QWidget()
    child = qt.QLabel(parent)
    assert parent.children() == (child,)
    assert parent.findChildren(qt.QLabel) == (child,)


def test_a_byte_array_gives_its_bytes_by_data_only(qt) -> None:
    array = qt.QByteArray(b"abc")
    assert array.data() == b"abc"
    with pytest.raises(TypeError):
        bytes(array)


def test_settings_give_booleans_back_as_strings(qt) -> None:
    settings = qt.QSettings()
    settings.setValue("Probe/flag", True)
    settings.setValue("Probe/number", 3)
    settings.setValue("Probe/one", ["a"])
    settings.setValue("Probe/two", ["a", "b"])
    assert settings.value("Probe/flag") == "true"
    assert settings.value("Probe/number") == "3"
    assert settings.value("Probe/one") == "a"
    assert settings.value("Probe/two") == ("a", "b")
    assert settings.value("Probe/absent", 5) == 5
    assert slicer.util.settingsValue("Probe/flag", False, converter=slicer.util.toBool) is True


def test_an_input_dialog_returns_the_bare_string(standin, qt) -> None:
    standin.answers.append("a comment")
    assert qt.QInputDialog.getText(None, "Title", "Comment:") == "a comment"


def test_file_dialogs_return_the_bare_path(standin, qt) -> None:
    standin.answers.extend(["/somewhere/a.csv", ""])
    assert qt.QFileDialog.getSaveFileName(None, "Save", "", "*.csv") == "/somewhere/a.csv"
    assert qt.QFileDialog.getExistingDirectory(None, "Folder") == ""


# Signals


def test_signals_connect_by_string_and_by_attribute(qt) -> None:
    button, seen = qt.QPushButton(), []
    assert button.connect("clicked(bool)", seen.append)
    button.clicked.connect(lambda: seen.append("attribute"))
    button.connect("clicked()", lambda: seen.append("fewer"))
    button.click()
    assert seen == [False, "attribute", "fewer"]


def test_a_slot_may_take_fewer_arguments_and_a_partial_gets_all(standin, qt) -> None:
    button, seen = qt.QPushButton(), []

    def none() -> None:
        seen.append(())

    button.clicked.connect(none)
    button.clicked.connect(functools.partial(lambda *arguments: seen.append(arguments), "own"))
    button.click()
    assert seen == [(), ("own", False)]
    button.clicked.connect(functools.partial(none))
    button.click()
    assert "TypeError" in standin.problems[0]
    standin.problems.clear()


def test_an_unknown_signal_returns_false_and_prints(standin, qt, capsys) -> None:
    assert qt.QPushButton().connect("pushed(bool)", print) is False
    assert "No such signal" in capsys.readouterr().err
    standin.problems.clear()


def test_an_unknown_signal_fails_the_test_at_its_end() -> None:
    started = slicer_standin.install()
    import qt

    qt.QPushButton().connect("pushed(bool)", print)
    with pytest.raises(slicer_standin.StandinProblems, match="No such signal"):
        started.uninstall()


def test_an_exception_in_a_slot_is_printed_and_fails_the_test_at_its_end(capsys) -> None:
    started = slicer_standin.install()
    import qt

    def fail() -> None:
        raise RuntimeError("the slot failed")

    button = qt.QPushButton()
    button.clicked.connect(fail)
    button.click()
    assert "the slot failed" in capsys.readouterr().err
    with pytest.raises(slicer_standin.StandinProblems, match="the slot failed"):
        started.uninstall()


def test_an_exception_in_an_observer_fails_the_test_at_its_end() -> None:
    started = slicer_standin.install()

    def fail(caller, event) -> None:
        raise RuntimeError("the observer failed")

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode")
    node.AddObserver(vtk.vtkCommand.ModifiedEvent, fail)
    node.SetName("other")
    with pytest.raises(slicer_standin.StandinProblems, match="the observer failed"):
        started.uninstall()


def test_a_signal_that_is_overloaded_in_qt_5_wants_its_signature(standin, qt) -> None:
    box, seen = qt.QComboBox(), []
    box.addItems(["a", "b"])
    assert box.currentIndexChanged.connect(lambda index: seen.append(index)) is False
    assert "overloaded" in standin.problems.pop()
    assert box.connect("currentIndexChanged(int)", seen.append)
    assert box.currentIndexChanged.connect(lambda: seen.append("none"))
    box.setCurrentIndex(1)
    assert seen == [1, "none"]
    selector = slicer.qMRMLNodeComboBox()
    assert selector.currentNodeChanged.connect(lambda node: None) is False
    standin.problems.clear()


def test_disconnect_takes_the_slot_away(qt) -> None:
    button, seen = qt.QPushButton(), []
    slot = seen.append
    button.connect("clicked(bool)", slot)
    assert button.disconnect("clicked(bool)", slot)
    assert not button.disconnect("clicked(bool)", slot)
    button.clicked.connect(slot)
    button.clicked.disconnect(slot)
    button.click()
    assert seen == []


def test_event_filters_and_handlers_in_python_are_called(standin, qt) -> None:
    class Filter(qt.QObject):
        def eventFilter(self, watched, event):
            if event.type() == qt.QEvent.KeyPress:
                self.keys.append(event.key())
                return True
            return False

    class Box(qt.QWidget):
        def showEvent(self, event):
            self.shown = True

    watcher, edit = Filter(), qt.QLineEdit()
    watcher.keys = []
    edit.installEventFilter(watcher)
    edit.show()
    standin.type(edit, "a")
    assert watcher.keys == [qt.Qt.Key_A]
    assert edit.text == ""
    box = Box()
    box.show()
    assert box.shown


def test_an_event_filter_that_returns_nothing_is_a_problem(standin, qt) -> None:
    class Filter(qt.QObject):
        def eventFilter(self, watched, event):
            pass

    watcher, edit = Filter(), qt.QLineEdit()
    edit.installEventFilter(watcher)
    edit.show()
    assert "instead of True or False" in standin.problems[0]
    edit.removeEventFilter(watcher)
    standin.problems.clear()


def test_a_python_function_is_refused_where_qt_wants_none(qt) -> None:
    with pytest.raises(ValueError, match="refuses"):
        qt.QMenu().addAction("text", print)


def test_timers_and_processes_run_in_the_event_loop(standin, qt) -> None:
    seen: list = []
    qt.QTimer.singleShot(1, lambda: seen.append("late"))
    assert standin.process(seconds=5, until=lambda: seen)
    process = qt.QProcess()
    process.connect("finished(int,QProcess::ExitStatus)", lambda code, status: seen.append((code, status)))
    process.start(sys.executable, ["-c", "print('hello')"])
    assert standin.process(seconds=30, until=lambda: len(seen) == 2)
    assert seen[1] == (0, qt.QProcess.NormalExit)
    assert process.readAllStandardOutput().data().strip() == b"hello"


def test_a_cell_is_clicked_as_a_user_clicks_it(standin, qt) -> None:
    table, seen = qt.QTableWidget(2, 2), []
    for row in range(2):
        for column in range(2):
            table.setItem(row, column, qt.QTableWidgetItem(f"{row}{column}"))
    table.connect("cellClicked(int,int)", lambda row, column: seen.append((row, column)))
    table.itemSelectionChanged.connect(lambda: seen.append(table.selectedItems()[0].text()))
    table.show()
    standin.clickCell(table, 1, 0)
    assert seen == ["10", (1, 0)]


def test_a_hidden_or_disabled_button_cannot_be_clicked(standin, qt) -> None:
    button = qt.QPushButton("Go")
    with pytest.raises(AssertionError, match="not visible"):
        standin.click(button)
    button.show()
    button.enabled = False
    with pytest.raises(AssertionError, match="disabled"):
        standin.click(button)


# Dialogs and testing mode


def test_questions_are_answered_by_the_test_and_kept(standin) -> None:
    standin.answers.extend(["Ok", "No", True])
    assert slicer.util.confirmOkCancelDisplay("Replace?") is True
    assert slicer.util.confirmYesNoDisplay("Sure?") is False
    assert slicer.util.confirmYesNoDisplay("Really?") is True
    assert [message.text for message in standin.messages] == ["Replace?", "Sure?", "Really?"]
    assert standin.messages[0].buttons == ("Ok", "Cancel")


def test_a_question_without_an_answer_is_a_problem(standin) -> None:
    assert slicer.util.confirmOkCancelDisplay("Replace?") is False
    assert "no answer" in standin.problems.pop()


def test_an_answer_that_nothing_asked_for_fails_the_test_at_its_end() -> None:
    started = slicer_standin.install()
    started.answers.append("Yes")
    with pytest.raises(slicer_standin.StandinProblems, match="Nothing asked"):
        started.uninstall()


def test_errors_are_shown_without_an_answer(standin) -> None:
    slicer.util.errorDisplay("It failed.")
    slicer.util.infoDisplay("It worked.")
    slicer.util.warningDisplay("It nearly failed.")
    assert [message.kind for message in standin.messages] == ["critical", "information", "warning"]


def test_a_menu_is_answered_by_the_text_of_its_entry(standin, qt) -> None:
    menu, seen = qt.QMenu(), []
    menu.addAction("&Accept").connect("triggered(bool)", lambda: seen.append("accepted"))
    menu.addAction("Reject").enabled = False
    standin.answers.append("Accept")
    assert menu.exec_(qt.QPoint(0, 0)).text == "&Accept"
    assert seen == ["accepted"]
    standin.answers.append("Reject")
    assert menu.exec_(qt.QPoint(0, 0)) is None
    assert "disabled" in standin.problems.pop()


def test_in_testing_mode_confirmations_return_false_and_messages_are_only_logged(caplog) -> None:
    started = slicer_standin.install(testing=True)
    try:
        with caplog.at_level(logging.INFO):
            assert slicer.app.testingEnabled()
            assert slicer.util.confirmOkCancelDisplay("Replace?") is False
            assert slicer.util.confirmYesNoDisplay("Sure?") is False
            slicer.util.errorDisplay("It failed.")
        assert not started.messages
        assert "It failed." in caplog.text
        with pytest.raises(RuntimeError), slicer.util.tryWithErrorDisplay("failed"):
            raise RuntimeError
        assert not started.messages
    finally:
        started.uninstall()


def test_try_with_error_display_shows_its_dialog_and_raises_again(standin) -> None:
    with pytest.raises(RuntimeError), slicer.util.tryWithErrorDisplay("The run failed."):
        raise RuntimeError("no disk")
    assert "The run failed." in standin.messages[-1].text


# Packages and versions


def test_packages_are_installed_on_consent_and_skipped_in_testing_mode(standin) -> None:
    from slicer import packaging

    standin.packages.missing = {"monai"}
    standin.answers.append("Ok")
    packaging.pip_ensure(["monai>=1.5", "numpy"], requester="Probe")
    assert standin.packages.requested == [("pip_ensure", ["monai>=1.5"])]
    standin.answers.append("Cancel")
    with pytest.raises(RuntimeError, match="declined"):
        packaging.pip_ensure("monai", requester="Probe")
    standin.packages.failure = RuntimeError("no network")
    with pytest.raises(RuntimeError, match="no network"):
        slicer.util.pip_install("monai")


def test_in_testing_mode_packages_are_silently_not_installed() -> None:
    started = slicer_standin.install(testing=True)
    try:
        started.packages.missing = {"monai"}
        slicer.packaging.pip_ensure("monai", requester="Probe")
        assert started.packages.requested == []
    finally:
        started.uninstall()


def test_slicer_5_10_has_no_packaging() -> None:
    started = slicer_standin.install(version="5.10.0")
    try:
        with pytest.raises(ImportError):
            from slicer import packaging  # noqa: F401
        with pytest.raises(AttributeError):
            slicer.util.executePythonModule  # noqa: B018
        with pytest.raises(TypeError):
            slicer.util.launchConsoleProcess([], blocking=False)
        slicer.util.pip_install(["monai"])
        assert started.packages.requested == [("pip_install", ["monai"])]
    finally:
        started.uninstall()


def test_the_torch_extension_can_be_absent_or_be_declined(standin) -> None:
    import PyTorchUtils

    standin.packages.torch = None
    assert PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=">=2.8") is None
    standin.withoutTorchExtension()
    with pytest.raises(ImportError):
        import PyTorchUtils as again  # noqa: F401


# The namespace


def test_slicer_has_no_names_that_the_application_lacks(standin) -> None:
    for name in ("arrayFromVolume", "me", "MRMLCore", "confirmOkCancelDisplay", "loadVolume", "noSuchThing"):
        with pytest.raises(AttributeError):
            getattr(slicer, name)
    assert slicer.util.arrayFromVolume
    assert slicer.mrmlScene is slicer.app.mrmlScene()


def test_everything_is_put_back() -> None:
    before = set(vars(slicer))
    started = slicer_standin.install()
    slicer.selfTests = {}
    started.uninstall()
    assert set(vars(slicer)) == before
    assert not {"qt", "ctk", "PyTorchUtils", "slicer.i18n"} & {
        name for name, module in sys.modules.items() if module is not None
    }


def test_without_a_main_window_there_is_neither_layout_nor_module_selector() -> None:
    started = slicer_standin.install(withMainWindow=False)
    try:
        assert slicer.util.mainWindow() is None
        assert slicer.app.layoutManager() is None
        with pytest.raises(RuntimeError):
            slicer.util.selectModule("SegmentEditor")
    finally:
        started.uninstall()


# parameterNodeWrapper


@pytest.fixture
def parameters(standin):
    from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper

    @parameterNodeWrapper
    class Parameters:
        count: int = 3
        ratio: Annotated[float, WithinRange(0, 1)] = 0.5
        flag: bool = False
        title: str = "none"
        folder: Path
        color: Color = Color.GREEN
        device: Annotated[str, Choice(["auto", "cpu"])] = "auto"
        volume: slicer.vtkMRMLScalarVolumeNode

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    return Parameters(node)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", np.int64(3)),
        ("count", 3.0),
        ("flag", 1),
        ("folder", "/tmp"),
        ("color", "RED"),
        ("title", 5),
        ("ratio", "0.5"),
        ("volume", "vtkMRMLScalarVolumeNode1"),
    ],
)
def test_a_parameter_of_another_type_is_a_type_error(parameters, name: str, value: object) -> None:
    with pytest.raises(TypeError):
        setattr(parameters, name, value)


@pytest.mark.parametrize(("name", "value"), [("ratio", 1.5), ("device", "gpu"), ("title", None), ("count", None)])
def test_a_parameter_with_a_wrong_value_is_a_value_error(parameters, name: str, value: object) -> None:
    with pytest.raises(ValueError):
        setattr(parameters, name, value)


def test_parameters_keep_their_types(parameters) -> None:
    parameters.ratio = np.float64(0.25)
    parameters.folder = Path("/tmp")
    parameters.color = Color.RED
    assert (parameters.count, parameters.ratio, parameters.flag, parameters.title) == (3, 0.25, False, "none")
    assert (parameters.folder, parameters.color, parameters.volume) == (Path("/tmp"), Color.RED, None)
    again = type(parameters)(parameters.parameterNode)
    assert (again.ratio, again.color, again.folder) == (0.25, Color.RED, Path("/tmp"))


def test_an_unknown_parameter_is_set_silently(parameters) -> None:
    parameters.unknown = 5
    assert not parameters.parameterNode.HasParameter("unknown")


def test_a_removed_node_reads_none(parameters) -> None:
    parameters.volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    assert parameters.volume is not None
    slicer.mrmlScene.RemoveNode(parameters.volume)
    assert parameters.volume is None


def test_setting_the_same_value_fires_no_event(parameters) -> None:
    seen: list = []
    parameters.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: seen.append(event))
    parameters.count = 3
    parameters.title = "none"
    assert seen == []
    parameters.count = 4
    assert len(seen) == 1


def _named(widget: object, name: str) -> object:
    widget.setProperty("SlicerParameterName", name)
    return widget


def test_the_gui_is_bound_both_ways_with_range_and_choices(parameters, qt, ctk) -> None:
    ui = types.SimpleNamespace(
        slider=_named(ctk.ctkSliderWidget(), "ratio"),
        spin=_named(qt.QSpinBox(), "count"),
        check=_named(qt.QCheckBox(), "flag"),
        device=_named(qt.QComboBox(), "device"),
        color=_named(qt.QComboBox(), "color"),
        title=_named(qt.QLineEdit(), "title"),
        folder=_named(ctk.ctkPathLineEdit(), "folder"),
    )
    with pytest.raises(IndexError):
        ui.color.addItems(["a", "b", "c"])
        ui.color.currentIndex = 2
        parameters.connectGui(ui)
    ui.color.currentIndex = 0
    tag = parameters.connectGui(ui)
    assert (ui.slider.minimum, ui.slider.maximum, ui.slider.value) == (0, 1, 0.5)
    assert [ui.device.itemText(row) for row in range(ui.device.count)] == ["auto", "cpu"]
    assert ui.color.currentText == "GREEN"
    ui.device.currentIndex = 1
    ui.color.currentIndex = 0
    ui.check.checked = True
    ui.spin.value = 7
    ui.slider.value = 0.75
    ui.title.text = "mine"
    ui.folder.currentPath = "/tmp"
    assert (parameters.device, parameters.color, parameters.flag, parameters.count) == ("cpu", Color.RED, True, 7)
    assert (parameters.ratio, parameters.title, parameters.folder) == (0.75, "mine", Path("/tmp"))
    parameters.count = 9
    assert ui.spin.value == 9
    parameters.disconnectGui(tag)
    ui.spin.value = 1
    assert parameters.count == 9


def test_connect_gui_wants_an_object_with_attributes(parameters, qt) -> None:
    with pytest.raises(AttributeError):
        parameters.connectGui({"spin": _named(qt.QSpinBox(), "count")})


def test_a_widget_that_cannot_show_the_type_is_refused(parameters, qt) -> None:
    with pytest.raises(RuntimeError, match="Unable to create GUI connector"):
        parameters.connectGui(types.SimpleNamespace(spin=_named(qt.QSpinBox(), "ratio")))
    with pytest.raises(ValueError, match="Cannot find a param"):
        parameters.connectGui(types.SimpleNamespace(spin=_named(qt.QSpinBox(), "counts")))


# Widgets over the scene


def test_the_node_selector_follows_the_scene(standin, qt) -> None:
    selector, seen = slicer.qMRMLNodeComboBox(), []
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.showChildNodeTypes = False
    selector.setMRMLScene(slicer.mrmlScene)
    selector.connect("currentNodeChanged(vtkMRMLNode*)", lambda node: seen.append(node and node.GetName()))
    first = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "first")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "second")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    assert selector.nodeCount() == 2
    assert selector.currentNode() is first
    selector.show()
    standin.select(selector, "second")
    assert seen == ["first", "second"]
    slicer.mrmlScene.RemoveNode(selector.currentNode())
    assert selector.currentNode() is first
    selector.setCurrentNode(None)
    assert selector.currentNode() is None
    assert selector.currentNodeID == ""
    standin.closeScene()
    assert selector.nodeCount() == 0


def test_a_collapsed_section_hides_its_content_and_shows_it_again(standin, module) -> None:
    widget = standin.openModule(module)
    ui = widget.ui
    assert not ui.selector.isVisible()
    ui.hiddenLabel.setVisible(True)
    assert not ui.hiddenLabel.isVisible()
    ui.hiddenLabel.setVisible(False)
    standin.click(ui.section)
    assert ui.section.collapsed is False
    assert ui.selector.isVisible()
    assert not ui.hiddenLabel.isVisible()


# Modules


def test_a_module_is_opened_left_and_cleaned_up_as_slicer_does(standin, module, tmp_path: Path) -> None:
    widget = standin.openModule(module, service="mine")
    assert (widget.calls, widget.service) == (["setup", "enter"], "mine")
    assert slicer.modules.probe.title == "Probe"
    assert slicer.modules.ProbeWidget is widget
    assert slicer.util.getModuleWidget("Probe") is widget
    assert slicer.util.getModuleLogic("Probe") is widget.logic
    assert widget.parent.isEntered
    assert widget.ui.selector.mrmlScene() is slicer.mrmlScene
    slicer.util.selectModule("SegmentEditor")
    assert not widget.parent.isEntered
    assert slicer.util.selectedModule() == "SegmentEditor"
    slicer.util.selectModule("Probe")
    assert widget.calls == ["setup", "enter", "exit", "enter"]
    assert standin.screenshot(widget, tmp_path / "panel.png").stat().st_size > 500
    standin.quit()
    assert widget.calls[-2:] == ["exit", "cleanup"]


def test_a_failing_setup_is_raised(standin, module) -> None:
    module.write_text(MODULE.replace('self.calls.append("setup")', "self.noSuchThing()"), encoding="utf-8")
    with pytest.raises(slicer_standin.StandinProblems, match="noSuchThing"):
        standin.openModule(module)
    standin.problems.clear()


def test_a_ui_file_of_qt_6_is_a_problem(standin, module, tmp_path: Path) -> None:
    text = '<property name="frameShape"><enum>QFrame::Shape::Box</enum></property>'
    ui = UI.replace('name="hiddenLabel"/>', f'name="hiddenLabel">{text}</widget>')
    (tmp_path / "Resources" / "UI" / "Probe.ui").write_text(ui, encoding="utf-8")
    with pytest.raises(slicer_standin.StandinProblems, match="Qt 5"):
        standin.openModule(module)
    standin.problems.clear()


def test_the_parameter_node_survives_saving_and_loading_the_scene(standin, module, tmp_path: Path) -> None:
    widget = standin.openModule(module)
    volume = slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), dtype=np.int16), name="ct")
    widget.logic.getParameterNode().inputVolume = volume
    standin.saveScene(tmp_path / "scene.mrb")
    standin.closeScene()
    assert widget.logic.getParameterNode().inputVolume is None
    standin.loadScene(tmp_path / "scene.mrb")
    assert widget.logic.getParameterNode().inputVolume.GetName() == "ct"


def test_the_segment_editor_takes_nodes_and_a_segment(standin) -> None:
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.GetSegmentation().AddEmptySegment("one", "One")
    segmentation.GetSegmentation().AddEmptySegment("two", "Two")
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.setSegmentationNode(segmentation)
    editor.setSourceVolumeNode(volume)
    editor.setCurrentSegmentID("two")
    assert editor.currentSegmentID() == "two"
    assert editor.segmentationNode() is segmentation
    assert editor.sourceVolumeNode() is volume


def test_views_are_real_nodes(standin) -> None:
    layout = slicer.app.layoutManager()
    assert layout.sliceViewNames() == ("Red", "Yellow", "Green")
    node = layout.sliceWidget("Red").mrmlSliceNode()
    node.JumpSlice(1, 2, 3)
    assert layout.threeDViewCount == 1
    camera = layout.threeDWidget(0).threeDView().cameraNode()
    assert camera.IsA("vtkMRMLCameraNode")
    standin.closeScene()
    assert layout.threeDWidget(0).threeDView().cameraNode() is not None
    assert layout.sliceWidget("Red").mrmlSliceNode().GetScene() is slicer.mrmlScene


def test_files_are_loaded_by_slicers_own_functions(standin) -> None:
    sample = Path(__file__).resolve().parent.parent / "LiverCascade" / "Resources" / "SampleData"
    node = slicer.util.loadVolume(str(sample / "synthetic_abdomen.nii.gz"))
    labels = slicer.util.loadLabelVolume(str(sample / "synthetic_abdomen_truth.nii.gz"))
    assert node.IsA("vtkMRMLScalarVolumeNode")
    assert labels.IsA("vtkMRMLLabelMapVolumeNode")
    assert slicer.util.arrayFromVolume(node).shape == slicer.util.arrayFromVolume(labels).shape
    composite = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == node.GetID()
    with pytest.raises(RuntimeError):
        slicer.util.loadVolume(str(sample / "absent.nii.gz"))


def test_arrays_of_types_that_slicer_refuses_are_refused(standin) -> None:
    node = slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), dtype=np.int16))
    for wrong in (bool, np.int64, np.float16):
        with pytest.raises(Exception, match=r"(?i)type|bool|support"):
            slicer.util.updateVolumeFromArray(node, np.zeros((3, 4, 5), dtype=wrong))
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(node)
    segmentation.GetSegmentation().AddEmptySegment("one", "One")
    mask = np.zeros((3, 4, 5), dtype=np.uint8)
    mask[1, 2, 3] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, "one", node)
    assert slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "one", node).sum() == 1


def test_flags_can_be_taken_away(qt) -> None:
    item = qt.QTableWidgetItem("cell")
    item.setFlags(item.flags() & ~qt.Qt.ItemIsEditable)
    assert not item.flags() & qt.Qt.ItemIsEditable
    assert item.flags() & qt.Qt.ItemIsEnabled


def test_heavy_packages_at_file_scope_are_a_problem(standin, module, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delitem(sys.modules, "monai", raising=False)
    (tmp_path / "monai.py").write_text("", encoding="utf-8")
    module.write_text("import monai\n" + MODULE, encoding="utf-8")
    standin.loadModule(module)
    assert "file scope" in standin.problems.pop()


def test_packages_are_never_installed_from_a_thread(standin) -> None:
    failures: list = []

    def install() -> None:
        try:
            slicer.util.pip_install("monai")
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=install)
    thread.start()
    thread.join()
    assert failures


def test_requirements_are_read_from_a_file(standin, tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("# comment\nmonai>=1.5\n\n", encoding="utf-8")
    (requirement,) = slicer.packaging.load_requirements(tmp_path / "requirements.txt")
    assert (requirement.name, str(requirement.specifier)) == ("monai", ">=1.5")


def test_the_settings_of_the_application_are_the_default_ones(qt) -> None:
    qt.QSettings().setValue("Probe/key", "value")
    assert slicer.app.settings().value("Probe/key") == "value"
    with pytest.raises(ImportError):
        import imp  # noqa: F401


def test_sample_data_is_registered_as_its_module_takes_it(standin) -> None:
    from SampleData import SampleDataLogic

    SampleDataLogic.registerCustomSampleDataCategory("Probe", title="The probe")
    SampleDataLogic.registerCustomSampleDataSource(category="Probe", sampleName="One", uris="file:///one")
    assert SampleDataLogic.categories == {"Probe": "The probe"}
    assert SampleDataLogic.sources == [("Probe", "One", {"uris": "file:///one"})]
    with pytest.raises(TypeError):
        SampleDataLogic.registerCustomSampleDataSource(category="Probe", name="One")


def test_thousands_of_calls_into_qt_do_not_use_up_none(standin, qt) -> None:
    label = qt.QLabel()
    for _ in range(5000):
        label.setText("text")
        slicer.app.processEvents()
    assert sys.getrefcount(None) > 1000
