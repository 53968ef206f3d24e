from .attention.capture import capture_attention
from .attention.exchange import without_exchange
from .attention.profiling import profile_attention
from .attention.rule import decide_depth
from .commands.attention import analyse_attention
from .commands.compress import compress
from .commands.data import check_data, make_phantom
from .commands.evaluate import evaluate
from .commands.export import export, export_bundle
from .commands.import_transunet import import_transunet
from .commands.predict import predict
from .commands.pull import pull
from .commands.push import push
from .commands.report import write_report
from .commands.study import study
from .commands.study_new import study_new
from .commands.study_schema import study_schema
from .commands.train import train
from .compression.block_selection import choose_blocks
from .config.schema import TrainConfig
from .errors import ConfigurationError, DataError, InputError, WeightsError
from .models.adapt import adapt
from .models.checkpoint import load_model, save_model
from .models.describe import describe
from .models.factory import create_model
from .models.network import truncate
from .training.distillation import recover

__all__ = [
    "ConfigurationError",
    "DataError",
    "InputError",
    "TrainConfig",
    "WeightsError",
    "adapt",
    "analyse_attention",
    "capture_attention",
    "check_data",
    "choose_blocks",
    "compress",
    "create_model",
    "decide_depth",
    "describe",
    "evaluate",
    "export",
    "export_bundle",
    "import_transunet",
    "load_model",
    "make_phantom",
    "predict",
    "profile_attention",
    "pull",
    "push",
    "recover",
    "save_model",
    "study",
    "study_new",
    "study_schema",
    "train",
    "truncate",
    "without_exchange",
    "write_report",
]

__version__: str
