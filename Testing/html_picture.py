"""A picture of an HTML page as a browser shows it: ``python Testing/html_picture.py PAGE.html PICTURE.png``.

Needs Qt's web engine (PySide6-Addons), which the project does not depend on: an environment with nothing else will do.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SIZE = (860, 1180)
# The engine draws a little after it says that the page is loaded.
PAUSE_MS, PATIENCE_MS = 1500, 60000


def take(page: Path, picture: Path) -> bool:
    """Writes the upper part of ``page`` as a PNG; False where it could not be loaded."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    os.environ.setdefault("QTWEBENGINE_CHROMIUM_FLAGS", "--no-sandbox --disable-gpu --single-process")
    from PySide6.QtCore import QTimer, QUrl
    from PySide6.QtWebEngineWidgets import QWebEngineView
    from PySide6.QtWidgets import QApplication

    application = QApplication([])
    view = QWebEngineView()
    view.resize(*SIZE)
    done = []

    def grab() -> None:
        done.append(view.grab().save(str(picture)))
        application.quit()

    view.loadFinished.connect(lambda loaded: QTimer.singleShot(PAUSE_MS, grab) if loaded else application.quit())
    QTimer.singleShot(PATIENCE_MS, application.quit)
    view.show()
    view.load(QUrl.fromLocalFile(str(page.absolute())))
    application.exec()
    return bool(done and done[0])


if __name__ == "__main__":
    sys.exit(0 if take(Path(sys.argv[1]), Path(sys.argv[2])) else 1)
