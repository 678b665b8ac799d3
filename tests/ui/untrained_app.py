"""Serves the app at the port given, with an untrained net and limits low enough to be met; stays until it is ended."""

import sys

from mofme.ui.jobs import Engine
from mofme.ui.limits import Limits
from mofme.ui.services import Services
from mofme.ui.window import serve
from mofme.vision.models import build_net
from mofme.vision.restorer import Restorer

if __name__ == "__main__":
    engine = Engine(["small"], lambda name: Restorer(build_net(name), name))
    serve(Services(engine, Limits(megapixels=0.1, upload_megabytes=1, batch_pictures=5)), port=int(sys.argv[1]))
