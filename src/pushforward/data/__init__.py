"""Tables and arrays: reading, checking, columns, splits, small real samples. Knows nothing of models."""

from pushforward.data.arrays import as_tensor_data
from pushforward.data.arrow import InputTypeError
from pushforward.data.column import Column
from pushforward.data.dimension import intrinsic_dimension
from pushforward.data.files import read_table, stream_table
from pushforward.data.images import as_images, holds_images, read_images
from pushforward.data.lattice import detect_lattice
from pushforward.data.samples import IMAGE_SAMPLES, SAMPLES, Sample, load_image_sample, load_sample
from pushforward.data.schema import Problem, Schema
from pushforward.data.splits import duplicate_groups, split_indices
from pushforward.data.tables import as_table, is_frame, is_positional
from pushforward.data.writer import TableWriter

__all__ = [
    "IMAGE_SAMPLES",
    "SAMPLES",
    "Column",
    "InputTypeError",
    "Problem",
    "Sample",
    "Schema",
    "TableWriter",
    "as_images",
    "as_table",
    "as_tensor_data",
    "detect_lattice",
    "duplicate_groups",
    "holds_images",
    "intrinsic_dimension",
    "is_frame",
    "is_positional",
    "load_image_sample",
    "load_sample",
    "read_images",
    "read_table",
    "split_indices",
    "stream_table",
]
