"""Data sets on disk: folders of images, read without torch, one frame at a time."""

from edgekit.data.dataset import Dataset, Sample
from edgekit.data.folder import IMAGE_SUFFIXES, read_folder
from edgekit.data.frames import BadImage, Frames, iterate
from edgekit.data.image import read_frame
from edgekit.data.order import class_weights, epoch_order, hold_back
from edgekit.data.sampling import (
    MIN_CALIBRATION_IMAGES,
    Sampling,
    calibration_warnings,
    choose,
    shared_images,
    split,
    stratified_sample,
)
from edgekit.data.store import KEEP_BYTES, Images, ImageStore

__all__ = [
    "IMAGE_SUFFIXES",
    "KEEP_BYTES",
    "MIN_CALIBRATION_IMAGES",
    "BadImage",
    "Dataset",
    "Frames",
    "ImageStore",
    "Images",
    "Sample",
    "Sampling",
    "calibration_warnings",
    "choose",
    "class_weights",
    "epoch_order",
    "hold_back",
    "iterate",
    "read_folder",
    "read_frame",
    "shared_images",
    "split",
    "stratified_sample",
]
