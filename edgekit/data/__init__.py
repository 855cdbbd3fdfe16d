"""Data sets on disk: folders of images, read without torch, one frame at a time."""

from edgekit.data.dataset import Dataset, Sample
from edgekit.data.folder import IMAGE_SUFFIXES, read_folder
from edgekit.data.frames import BadImage, Frames, iterate
from edgekit.data.image import read_frame
from edgekit.data.sampling import (
    MIN_CALIBRATION_IMAGES,
    Sampling,
    calibration_warnings,
    choose,
    shared_images,
    split,
    stratified_sample,
)

__all__ = [
    "IMAGE_SUFFIXES",
    "MIN_CALIBRATION_IMAGES",
    "BadImage",
    "Dataset",
    "Frames",
    "Sample",
    "Sampling",
    "calibration_warnings",
    "choose",
    "iterate",
    "read_folder",
    "read_frame",
    "shared_images",
    "split",
    "stratified_sample",
]
