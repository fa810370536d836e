import os
import sys
from pathlib import Path

# The models are tiny: a second thread only waits, for seconds where the machine is busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))
