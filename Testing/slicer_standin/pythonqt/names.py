"""Which of PySide's names PythonQt has, and which it does not.

Read from the wrappers of PythonQt for Qt 5.15 (generated_cpp_515 in MeVisLab/pythonqt) and compared with PySide 6.12;
signals, slots and properties that came with Qt 6 were added by hand.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _table(text: str) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for word in text.split():
        if word.endswith(":"):
            current = word[:-1]
            found[current] = frozenset()
        else:
            found[current] |= {word}
    return found


# The classes of the module ``qt``. PythonQt has more; these were looked at. QThread is left out with intent:
# background work belongs into a process.
CLASSES = _words(
    """
    Qt QObject QTimer QElapsedTimer QProcess QProcessEnvironment QSettings QFile QFileInfo QDir QIODevice QByteArray
    QUrl QDateTime QDate QTime QLocale QSize QSizeF QPoint QPointF QRect QRectF QEvent QTimerEvent QEventLoop
    QCoreApplication QSysInfo QStandardPaths QModelIndex QItemSelectionModel QAbstractItemModel QSignalBlocker
    QColor QBrush QPen QFont QFontMetrics QIcon QPixmap QImage QPalette QPainter QCursor QKeyEvent QMouseEvent
    QWheelEvent QFocusEvent QResizeEvent QShowEvent QHideEvent QCloseEvent QHelpEvent QPaintEvent QContextMenuEvent
    QKeySequence QDesktopServices QStandardItemModel QStandardItem QTextCursor QGuiApplication QClipboard QIntValidator
    QDoubleValidator
    QApplication QAction QWidget QFrame QLabel QPushButton QToolButton QCheckBox QRadioButton QButtonGroup QComboBox
    QLineEdit QSpinBox QDoubleSpinBox QSlider QScrollBar QProgressBar QPlainTextEdit QTextEdit QTextBrowser QGroupBox
    QTabWidget QTabBar QStackedWidget QScrollArea QSplitter QSizePolicy QLayout QBoxLayout QHBoxLayout QVBoxLayout
    QGridLayout QFormLayout QSpacerItem QStackedLayout QMenu QMenuBar QMainWindow QDockWidget QStatusBar QToolBar
    QDialog QDialogButtonBox QMessageBox QFileDialog QInputDialog QProgressDialog QShortcut
    QAbstractItemView QTableView QTableWidget QTableWidgetItem QHeaderView QListWidget QListWidgetItem QTreeWidget
    QTreeWidgetItem QStyledItemDelegate QStyle QToolTip QUiLoader
    """
)


# Members that Qt 5's wrappers lack.
QT6_ONLY = _table(
    """
    Qt: beginPropertyUpdateGroup endPropertyUpdateGroup
    QTimer: id intervalAsDuration remainingTimeAsDuration
    QProcess: UnixProcessParameters failChildProcessModifier setUnixProcessParameters startCommand
        unixProcessParameters
    QProcessEnvironment: inheritsFromParent
    QFile: supportsMoveToTrash
    QFileInfo: fileTime isAlias isOther junctionTarget readSymLink stat
    QIODevice: readLineInto skipData
    QByteArray: FromBase64Result assign cbegin cend erase first fromRawData fromStdString isValidUtf8 last
        maxSize max_size nullTerminate nullTerminated percentDecoded removeAt removeFirst removeLast
        resizeForOverwrite slice sliced toLong toLongLong toShort toStdString toUInt toULong toULongLong
    QDateTime: addDuration timeRepresentation
    QSize: toSizeF
    QPoint: toPointF
    QRect: getCoords getRect span toRectF
    QRectF: getCoords getRect
    QEvent: isInputEvent isPointerEvent isSinglePointEvent
    QTimerEvent: id matches
    QCoreApplication: checkPermission installNativeEventFilter instanceExists removeNativeEventFilter
        requestPermission shutdown
    QModelIndex: constInternalPointer multiData
    QAbstractItemModel: checkIndex clearItemData multiData
    QSignalBlocker: dismiss
    QColor: fromString getHsv getHsvF getRgb getRgbF isValidColorName
    QFont: clearFeatures clearVariableAxes featureTags featureValue isFeatureSet isVariableAxisSet legacyWeight
        resolveMask setFeature setLegacyWeight setResolveMask setVariableAxis unsetFeature unsetVariableAxis
        variableAxisTags variableAxisValue
    QFontMetrics: boundingRectChar horizontalAdvanceChar
    QPixmap: deviceIndependentSize fromImageInPlace
    QPalette: accent resolveMask setResolveMask
    QKeyEvent: keyCombination
    QWheelEvent: hasPixelDelta isBeginEvent isEndEvent isInverted isUpdateEvent
    QStandardItemModel: multiData
    QStandardItem: multiData
    QTextCursor: insertMarkdown selectedTableCells
    QGuiApplication: nativeInterface platformFunction
    QAction: associatedObjects
    QWidget: accessibleIdentifier create find internalWinId isTopLevel setAccessibleIdentifier setScreen
        topLevelWidget
    QCheckBox: checkStateChanged
    QComboBox: labelDrawingMode setLabelDrawingMode
    QScrollBar: createStandardContextMenu
    QPlainTextEdit: print_
    QTextEdit: ExtraSelection print_
    QSplitter: getRange
    QLayout: getContentsMargins setHorizontalSizeConstraint setSizeConstraints setVerticalSizeConstraint
        totalMinimumHeightForWidth unsetContentsMargins
    QLayoutItem: align
    QGridLayout: getItemPosition
    QFormLayout: TakeRowResult isRowVisible setRowVisible
    QMenu: menuInAction
    QDockWidget: dockLocation setDockLocation
    QDialogButtonBox: standardButtonShortcut standardButtonText
    QMessageBox: buttonText options setButtonText setOption setOptions standardIcon testOption
    QShortcut: keys setKeys
    QAbstractItemView: initViewItemOption itemDelegateForIndex keyboardSearchFlags setKeyboardSearchFlags
        setUpdateThreshold updateThreshold
    QTableView: initViewItemOption
    QTableWidget: setSupportedDragActions
    QHeaderView: initStyleOptionForIndex isSortIndicatorClearable setSortIndicatorClearable
    QListWidget: setSupportedDragActions
    QTreeWidget: setSupportedDragActions
    """
)

# Enums, with their values, that Qt 5's wrappers lack.
QT6_ONLY_ENUMS = _table(
    """
    Qt: ColorScheme ContextMenuTrigger ContrastPreference HighDpiScaleFactorRoundingPolicy Modifier
        MotionPreference PermissionStatus ReturnByValueConstant TimerId
    QProcess: UnixProcessFlag
    QProcessEnvironment: Initialization
    QByteArray: Base64DecodingStatus
    QUrl: AceProcessingOption
    QDateTime: TransitionResolution YearRange
    QIcon: ThemeIcon
    QFont: Tag
    QAbstractItemModel: CheckIndexOption
    QMessageBox: Option
    """
)

# Members of PySide's own making.
PYSIDE_ONLY = _words("toTuple toPython emit receivers resolveInterface connectNotify disconnectNotify")

# What exists in Slicer and should not be used, with the reason.
TRAPS: dict[str, dict[str, str]] = {
    "QProcess": {"error": "a method and a signal in Qt 5: use errorOccurred and exitStatus()"},
}
