"""Tables, arrays and images in memory: checks, columns, splits, intrinsic dimension, small real samples."""

from pushforward.data.arrays import as_tensor_data
from pushforward.data.arrow import InputTypeError
from pushforward.data.column import Column
from pushforward.data.dimension import intrinsic_dimension
from pushforward.data.images import as_images
from pushforward.data.lattice import detect_lattice
from pushforward.data.photographs import Photographs
from pushforward.data.samples import IMAGE_SAMPLES, SAMPLES, Sample, load_image_labels, load_image_sample, load_sample
from pushforward.data.samples.network import ClothesNetwork, load_clothes_network
from pushforward.data.schema import Problem, Schema
from pushforward.data.splits import duplicate_groups, split_indices
from pushforward.data.tables import as_table, is_frame, is_positional

__all__ = [
    "IMAGE_SAMPLES",
    "SAMPLES",
    "ClothesNetwork",
    "Column",
    "InputTypeError",
    "Photographs",
    "Problem",
    "Sample",
    "Schema",
    "as_images",
    "as_table",
    "as_tensor_data",
    "detect_lattice",
    "duplicate_groups",
    "intrinsic_dimension",
    "is_frame",
    "is_positional",
    "load_clothes_network",
    "load_image_labels",
    "load_image_sample",
    "load_sample",
    "split_indices",
]
