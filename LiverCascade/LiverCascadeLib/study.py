"""One study, one folder of results, and what may be wished beside the usual files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import InputError
from .lesions.assess import assess_result
from .lesions.assessment import Assessment
from .lesions.couinaud_landmarks import Point, read_landmarks
from .lesions.couinaud_network import couinaud_of
from .lesions.couinaud_planes import couinaud_for
from .progress import Progress
from .report.files import OutputFolder, write_results
from .result import Result
from .scene import SceneProcess
from .steps import exhausted
from .volume import Volume, read_volume

if TYPE_CHECKING:
    from .dicom.instances import Instances
    from .report.writing import ReportRequest


@dataclass(frozen=True)
class Wishes:
    """What is wanted beside the usual files; by default nothing.

    Attributes:
        couinaud: divide the liver into Couinaud's segments.
        landmarks: file with points for that; wanted by itself, it asks for the segments too.
        report: what the report of a volume is to say; None for no report.
        dicom: write DICOM objects, which refer to the series that the volume was read from.
        generate_uids: make up identifiers that the series lacks.
    """

    couinaud: bool = False
    landmarks: Path | None = None
    report: Callable[[Volume], ReportRequest] | None = None
    dicom: bool = False
    generate_uids: bool = False

    def begin(self, volume: Volume, output: Path) -> Wish:
        """Finds out, before anything is computed, whether the wishes can be fulfilled for ``volume``.

        Raises:
            InputError: they cannot; the message says why.
            OutputError: ``output`` holds the report of another scan.
        """
        instances, points = None, None
        if self.couinaud or self.landmarks:
            points = read_landmarks(self.landmarks) if self.landmarks else {}
        if self.dicom:
            if volume.source.get("format") != "dicom":
                raise InputError(
                    f"{volume.source.get('path')} is not DICOM and names no slices that DICOM objects could refer to. "
                    "Leave --dicom out, or segment the DICOM series."
                )
            from .dicom.instances import find_instances

            instances = find_instances(Path(str(volume.source["path"])), volume, self.generate_uids)
        if self.report is None:
            return Wish(points, None, instances)
        from .report.writing import check_earlier

        check_earlier(output, volume)
        return Wish(points, self.report(volume), instances)


@dataclass(frozen=True)
class Wish:
    """The wishes for one volume.

    Attributes:
        points: landmarks for Couinaud's segments; empty where they are to be estimated, None for no segments.
        request: what the report is to say; None for no report.
        instances: the slices that DICOM objects refer to; None for no objects.
    """

    points: dict[str, list[Point]] | None
    request: ReportRequest | None
    instances: Instances | None

    def assess(self, result: Result) -> Assessment:
        """Everything measured of ``result``, with liver segments where they are wanted or a model drew them.

        A reader's landmarks go before a network's segments, and those before an estimate.
        """
        couinaud = None if self.points else couinaud_of(result)
        if couinaud is None and self.points is not None and result.liver_volume_ml > 0:
            couinaud = couinaud_for(result.volume.grid, result.labels, self.points)
        return assess_result(result, couinaud)

    def write(self, assessment: Assessment, output: OutputFolder) -> None:
        """Adds the files to the staging folder of ``output``.

        Raises:
            LiverCascadeError: as reports and DICOM objects raise them.
        """
        if self.request is not None:
            from .report.writing import file_steps

            exhausted(file_steps(assessment, output.staging, self.request, previous=output.path))
        if self.instances is not None and (assessment.labels > 0).any():
            from .dicom.export import file_steps

            exhausted(file_steps(assessment, self.instances, output.staging))


def segment_study(
    path: Path,
    output: Path,
    compute: Callable[[Volume, Progress], Result],
    progress: Progress,
    meanwhile: Sequence[Callable[[], None]] = (),
    wishes: Wishes | None = None,
) -> Result:
    """One study, one result folder: reads, computes and writes, all files or none.

    Args:
        path: a volume file, a DICOM folder or one file of a DICOM series.
        output: the folder for the results.
        compute: makes the result, in this process or in a worker.
        progress: listener and cancellation.
        meanwhile: what can be done while another thread reads, such as imports and the loading of models.
        wishes: what is wanted beside the usual files; what cannot be had is refused before anything is computed.

    Raises:
        LiverCascadeError: as reading, computing and writing raise them.
    """
    with OutputFolder(output) as folder, SceneProcess(folder.scratch) as scene:

        def read() -> Volume:
            volume = read_volume(path)
            scene.prepare(volume)
            return volume

        volume = _read_beside(read, meanwhile, progress)
        wish = (wishes or Wishes()).begin(volume, folder.path)
        result = compute(volume, progress)
        write_results(result, folder, progress, scene, wish.assess, wish.write)
    return result


def _read_beside(read: Callable[[], Volume], meanwhile: Sequence[Callable[[], None]], progress: Progress) -> Volume:
    if not meanwhile:
        progress.stage("read")
        return read()
    # Two threads that import can wait for each other: what reading needs is there before the second one begins.
    import nibabel  # noqa: F401
    import SimpleITK  # noqa: F401

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        progress.stage("load")
        for step in meanwhile:
            step()
            progress.update(0.5)
            if reading.done():
                reading.result()  # a bad input is told at once
        progress.stage("read")
        return reading.result()
