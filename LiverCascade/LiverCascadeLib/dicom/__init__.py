"""DICOM objects: who was examined, the instances behind a volume, segmentations (SEG) and measurement reports (SR).

Series are read in ``dicom_series``; here are the objects that refer to them. Everything is written with highdicom and
pydicom, and read with pydicom alone, because objects from elsewhere are not always as the standard wants them.
"""
