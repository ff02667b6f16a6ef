"""Type stub of the names that `__init__.py` loads on first use, for editors and type checkers."""

from tf_fast_rcnn.boxes import BoxStatistics as BoxStatistics
from tf_fast_rcnn.browsing.page import browse as browse
from tf_fast_rcnn.data.batches.hierarchical import hierarchical_batches as hierarchical_batches
from tf_fast_rcnn.data.batches.hierarchical import roi_centric_batches as roi_centric_batches
from tf_fast_rcnn.data.batches.settings import SamplingRules as SamplingRules
from tf_fast_rcnn.data.datasets import DetectionDataset as DetectionDataset
from tf_fast_rcnn.data.detections import Detection as Detection
from tf_fast_rcnn.data.detections import Detections as Detections
from tf_fast_rcnn.data.drawing import draw_detections as draw_detections
from tf_fast_rcnn.data.images import read_image as read_image
from tf_fast_rcnn.data.prepared.read import verify_prepared as verify_prepared
from tf_fast_rcnn.data.prepared.tiles import cut_tiles as cut_tiles
from tf_fast_rcnn.data.prepared.write import cached_proposals as cached_proposals
from tf_fast_rcnn.data.prepared.write import prepare as prepare
from tf_fast_rcnn.data.proposals import DenseBoxes as DenseBoxes
from tf_fast_rcnn.data.proposals import FileProposals as FileProposals
from tf_fast_rcnn.data.proposals import ProposalSettings as ProposalSettings
from tf_fast_rcnn.data.proposals import dense_grid as dense_grid
from tf_fast_rcnn.data.proposals import file_proposals as file_proposals
from tf_fast_rcnn.data.proposals import proposal_settings as proposal_settings
from tf_fast_rcnn.data.proposals.files import ProposalReport as ProposalReport
from tf_fast_rcnn.data.proposals.selective_search import selective_search as selective_search
from tf_fast_rcnn.data.readers.coco import coco_category_ids as coco_category_ids
from tf_fast_rcnn.data.records import CocoObjects as CocoObjects
from tf_fast_rcnn.data.records import ImageRecord as ImageRecord
from tf_fast_rcnn.data.selection import split_dataset as split_dataset
from tf_fast_rcnn.data.selection import with_classes as with_classes
from tf_fast_rcnn.data.specs import load_dataset as load_dataset
from tf_fast_rcnn.data.statistics import box_statistics as box_statistics
from tf_fast_rcnn.data.tiles import Tiles as Tiles
from tf_fast_rcnn.data.video import read_video as read_video
from tf_fast_rcnn.data.writers.coco_results import coco_results as coco_results
from tf_fast_rcnn.data.writers.convert import convert as convert
from tf_fast_rcnn.data.writers.convert import save_detections as save_detections
from tf_fast_rcnn.errors import InputError as InputError
from tf_fast_rcnn.evaluation import score_detections as score_detections
from tf_fast_rcnn.evaluation.analysis import Analysis as Analysis
from tf_fast_rcnn.evaluation.analysis import analyse as analyse
from tf_fast_rcnn.evaluation.confidence import with_confidence as with_confidence
from tf_fast_rcnn.evaluation.detection_files import read_detections as read_detections
from tf_fast_rcnn.evaluation.detection_files import write_comp4 as write_comp4
from tf_fast_rcnn.evaluation.models import evaluate as evaluate
from tf_fast_rcnn.evaluation.rank_search import smallest_ranks as smallest_ranks
from tf_fast_rcnn.evaluation.report import write_report as write_report
from tf_fast_rcnn.evaluation.results import ClassResult as ClassResult
from tf_fast_rcnn.evaluation.results import Confidence as Confidence
from tf_fast_rcnn.evaluation.results import EvaluationResult as EvaluationResult
from tf_fast_rcnn.export.limits import ServingLimits as ServingLimits
from tf_fast_rcnn.export.saved_model import export_saved_model as export_saved_model
from tf_fast_rcnn.export.tfjs import export_tfjs as export_tfjs
from tf_fast_rcnn.export.tflite import export_tflite as export_tflite
from tf_fast_rcnn.inference.detect import classify_regions as classify_regions
from tf_fast_rcnn.inference.detect import detect as detect
from tf_fast_rcnn.inference.detect import detect_batch as detect_batch
from tf_fast_rcnn.inference.detect import detection_settings as detection_settings
from tf_fast_rcnn.inference.predictor import Predictor as Predictor
from tf_fast_rcnn.inference.settings import DetectionSettings as DetectionSettings
from tf_fast_rcnn.inference.sources import Source as Source
from tf_fast_rcnn.inference.tflite import TFLiteDetector as TFLiteDetector
from tf_fast_rcnn.models.caffe_detectors import load_caffe_detector as load_caffe_detector
from tf_fast_rcnn.models.fast_rcnn import fast_rcnn as fast_rcnn
from tf_fast_rcnn.models.losses import multi_task_loss as multi_task_loss
from tf_fast_rcnn.models.truncated_svd import CompressionSummary as CompressionSummary
from tf_fast_rcnn.models.truncated_svd import LayerChange as LayerChange
from tf_fast_rcnn.models.truncated_svd import compress as compress
from tf_fast_rcnn.models.truncated_svd import compression_summary as compression_summary
from tf_fast_rcnn.ops.native import native_ops_available as native_ops_available
from tf_fast_rcnn.ops.roi_pooling import RoIPooling as RoIPooling
from tf_fast_rcnn.ops.roi_pooling import roi_pool as roi_pool
from tf_fast_rcnn.training.keras_backup import resume_position as resume_position
from tf_fast_rcnn.training.optimizers import FineTuningAdamW as FineTuningAdamW
from tf_fast_rcnn.training.optimizers import FineTuningSGD as FineTuningSGD
from tf_fast_rcnn.training.optimizers import adamw as adamw
from tf_fast_rcnn.training.optimizers import sgd as sgd
from tf_fast_rcnn.training.recipes import recipe as recipe
from tf_fast_rcnn.training.run import TrainingSummary as TrainingSummary
from tf_fast_rcnn.training.run import train as train
from tf_fast_rcnn.training.run_folder import Run as Run
from tf_fast_rcnn.training.run_folder import load_run as load_run
from tf_fast_rcnn.training.settings import NetworkSettings as NetworkSettings
from tf_fast_rcnn.training.settings import OptimizerSettings as OptimizerSettings
from tf_fast_rcnn.training.settings import Recipe as Recipe
from tf_fast_rcnn.training.training_data import TrainingData as TrainingData
from tf_fast_rcnn.training.training_data import training_data as training_data

__version__: str

_PUBLIC_NAMES: dict[str, str]
__all__: list[str]

def check_keras_backend() -> None: ...
