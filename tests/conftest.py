import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # tests never call home

import torch
from hypothesis import settings

settings.register_profile("mofme", deadline=None, derandomize=True)  # the same examples on every machine
settings.load_profile("mofme")
torch.set_num_threads(1)  # two thread pools on two cores spin against each other
