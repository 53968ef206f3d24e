"""vitrim: trim the transformer of a hybrid segmentation network to the blocks that it needs.

The public names stand in `__init__.pyi`, with their types. Each is loaded when it is first used, so that
`import vitrim` is fast and does not import torch.
"""

import lazy_loader

__version__ = "0.2.0.dev0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
